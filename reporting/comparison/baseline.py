"""What a comparison with the past is made of: the runs of each strategy, from a comparison or its report.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.comparison.summary import Group
from reporting.runs.figures import RunFigures
from reporting.runs.run import Run
from runner.common.errors import HydromelError

BATCH_SIZE = "batching.batch_size"  # a setting of groups that are apart by it


@dataclass(frozen=True)
class Side:
    """One strategy of one group, now or then. `headline` is the figure by which quality is compared."""

    heading: str
    strategy: str
    headline: str
    options: Mapping[str, str]  # of its batching, by dotted name
    runs: list[RunFigures]
    at_hand: Mapping[str, Run]  # the runs themselves, by run_id: with what each example adds; none of a report's


# by what must agree: comparison hash, data, headline, batch size (where groups are apart by it), strategy
Sides = dict[tuple[str, ...], Side]


def of_groups(groups: list[Group], runs: Iterable[Run]) -> Sides:
    """`runs`: those that the groups were made of."""
    at_hand = {run.text("run_id"): run for run in runs}
    found: Sides = {}
    alike = Counter((group.comparison_hash, group.data_fingerprint) for group in groups)
    for group in groups:
        several = alike[group.comparison_hash, group.data_fingerprint] > 1
        for each in group.strategies:
            headline = f"{group.split}/{group.metric}"
            side = Side(_heading(group.title, group.settings), each.name, headline, each.options, each.runs, at_hand)
            size = group.settings.get(BATCH_SIZE, "") if several else ""
            found[group.comparison_hash, group.data_fingerprint, headline, size, each.name] = side
    return found


def of_report(path: Path) -> Sides:
    """From a report.json. Raises HydromelError for a file that is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        alike = Counter((group["comparison_hash"], group["data_fingerprint"]) for group in report["groups"])
        found: Sides = {}
        for group in report["groups"]:
            found |= _of_json(group, alike[group["comparison_hash"], group["data_fingerprint"]] > 1)
        return found
    except (OSError, ValueError) as error:
        raise HydromelError(f"--baseline {path} cannot be read: {' '.join(str(error).split())}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise HydromelError(
            f"--baseline {path} is no report.json of this version of hydromel-compare ({type(error).__name__}: {error})"
        ) from error


def _of_json(group: Any, several: bool) -> Sides:
    """`several`: whether there are groups like it, so that its batch size tells it from them."""
    found: Sides = {}
    size = group["settings"].get(BATCH_SIZE, "") if several else ""
    for each in group["strategies"]:
        headline = f"{group['split']}/{group['metric']}"
        runs = [
            RunFigures(
                run_id=run["run_id"],
                seed=run["seed"],
                turn=run["turn"],
                machine=tuple(run["machine"]),
                figures={name: float(value) for name, value in run["figures"].items()},
            )
            for run in each["runs"]
        ]
        side = Side(_heading(group["title"], group["settings"]), each["name"], headline, each["options"], runs, {})
        found[group["comparison_hash"], group["data_fingerprint"], headline, size, each["name"]] = side
    return found


def _heading(title: str, settings: Mapping[str, str]) -> str:
    return f"{title} ({', '.join(f'{name}={value}' for name, value in settings.items())})" if settings else title
