"""The two sides of a comparison with earlier runs: the runs of each strategy, from a comparison or its report.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from reporting.comparison.summary import RunGroup
from reporting.runs.measures import RunFigures
from reporting.runs.run import Run
from reporting.runs.settings import BATCH_SIZE
from runner.common.errors import HydromelError


@dataclass(frozen=True)
class StrategyRuns:
    """One strategy of one group, before or now. `headline` is the figure that measures its quality."""

    heading: str
    strategy: str
    headline: str
    options: Mapping[str, str]  # options of its batching, by dotted name
    runs: list[RunFigures]
    at_hand: Mapping[str, Run]  # the runs by run_id, for their outcomes; empty if read from a report.json

    @property
    def name(self) -> str:
        """The strategy and its group."""
        return f"{self.strategy} ({self.heading})"


# keyed by what must agree: comparison hash, data, headline, batch size (if groups differ only in it), strategy
Sides = dict[tuple[str, ...], StrategyRuns]


@dataclass(frozen=True)
class SavedStrategy:
    """The part of a `StrategySummary` in a report.json that a comparison needs."""

    name: str
    options: dict[str, str]
    runs: list[RunFigures]


@dataclass(frozen=True)
class SavedGroup:
    """The part of a `RunGroup` in a report.json that a comparison needs."""

    title: str
    metric: str
    split: str
    comparison_hash: str
    data_fingerprint: str
    settings: dict[str, str]
    strategies: list[SavedStrategy]


@dataclass(frozen=True)
class SavedReport:
    """The part of a report.json that a comparison needs."""

    groups: list[SavedGroup]


def sides_of_groups(groups: Sequence[RunGroup | SavedGroup], runs: Iterable[Run]) -> Sides:
    """Return one side of a comparison, given its groups; `runs` are the runs of these groups, as far as available."""
    at_hand = {run.result["run_id"]: run for run in runs}
    sides: Sides = {}
    similar = Counter((group.comparison_hash, group.data_fingerprint) for group in groups)
    for group in groups:
        configuration, settings = (group.comparison_hash, group.data_fingerprint), group.settings
        headline = f"{group.split}/{group.metric}"
        # Groups of equal configuration and data differ in batch size. A single group is matched whatever its batch
        # size.
        size = settings.get(BATCH_SIZE, "") if similar[configuration] > 1 else ""
        shown = f" ({', '.join(f'{name}={value}' for name, value in settings.items())})" if settings else ""
        for own in group.strategies:
            side = StrategyRuns(group.title + shown, own.name, headline, own.options, own.runs, at_hand)
            sides[(*configuration, headline, size, own.name)] = side
    return sides


def sides_of_report(path: Path) -> Sides:
    """Return the sides in a report.json. Raises HydromelError for any other file."""
    try:
        return sides_of_groups(TypeAdapter(SavedReport).validate_json(path.read_bytes()).groups, [])
    except OSError as error:
        raise HydromelError(f"--baseline {path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise HydromelError(
            f"--baseline {path} is not a report.json of this version of hydromel-compare; write it again "
            f"({where and f'{where}: '}{first['msg']})"
        ) from error
