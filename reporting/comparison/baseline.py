"""The two sides of a comparison with earlier runs: the runs of each strategy, from a comparison or its report.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.comparison.summary import RunGroup
from reporting.runs.figures import RunFigures
from reporting.runs.run import Run
from runner.common.errors import HydromelError

BATCH_SIZE = "batching.batch_size"  # the setting of groups that differ in it


@dataclass(frozen=True)
class StrategyRuns:
    """One strategy of one group, before or now. `headline` is the figure that measures its quality."""

    heading: str
    strategy: str
    headline: str
    options: Mapping[str, str]  # of its batching, by dotted name
    runs: list[RunFigures]
    at_hand: Mapping[str, Run]  # the runs themselves by run_id, which have outcomes; empty for a report.json


# by what must agree: comparison hash, data, headline, batch size (where groups differ in it alone), strategy
Sides = dict[tuple[str, ...], StrategyRuns]


def sides_of_groups(groups: list[RunGroup], runs: Iterable[Run]) -> Sides:
    """Return the sides of a comparison's groups; `runs` are the runs of these groups."""
    at_hand = {run.result["run_id"]: run for run in runs}
    sides: Sides = {}
    similar = Counter((group.comparison_hash, group.data_fingerprint) for group in groups)
    for group in groups:
        size = _batch_size(group.settings, similar[group.comparison_hash, group.data_fingerprint])
        for strategy in group.strategies:
            headline = f"{group.split}/{group.metric}"
            sides[group.comparison_hash, group.data_fingerprint, headline, size, strategy.name] = StrategyRuns(
                heading=_heading(group.title, group.settings),
                strategy=strategy.name,
                headline=headline,
                options=strategy.options,
                runs=strategy.runs,
                at_hand=at_hand,
            )
    return sides


def sides_of_report(path: Path) -> Sides:
    """Return the sides in a report.json. Raises HydromelError for any other file."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        similar = Counter((group["comparison_hash"], group["data_fingerprint"]) for group in report["groups"])
        sides: Sides = {}
        for group in report["groups"]:
            sides |= _of_json(group, similar[group["comparison_hash"], group["data_fingerprint"]])
        return sides
    except (OSError, ValueError) as error:
        raise HydromelError(f"--baseline {path} cannot be read: {' '.join(str(error).split())}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise HydromelError(
            f"--baseline {path} is not a report.json of this version of hydromel-compare; write it again "
            f"({type(error).__name__}: {error})"
        ) from error


def _of_json(group: Any, similar: int) -> Sides:
    sides: Sides = {}
    size = _batch_size(group["settings"], similar)
    headline = f"{group['split']}/{group['metric']}"
    for strategy in group["strategies"]:
        runs = [
            RunFigures(
                run_id=run["run_id"],
                seed=run["seed"],
                turn=run["turn"],
                machine=tuple(run["machine"]),
                figures={name: float(value) for name, value in run["figures"].items()},
            )
            for run in strategy["runs"]
        ]
        sides[group["comparison_hash"], group["data_fingerprint"], headline, size, strategy["name"]] = StrategyRuns(
            heading=_heading(group["title"], group["settings"]),
            strategy=strategy["name"],
            headline=headline,
            options=strategy["options"],
            runs=runs,
            at_hand={},
        )
    return sides


def _batch_size(settings: Mapping[str, str], similar: int) -> str:
    """Return the batch size that distinguishes a group from the `similar` groups of equal hash and data; else empty."""
    return settings.get(BATCH_SIZE, "") if similar > 1 else ""


def _heading(title: str, settings: Mapping[str, str]) -> str:
    return f"{title} ({', '.join(f'{name}={value}' for name, value in settings.items())})" if settings else title
