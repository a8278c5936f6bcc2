"""The headline of a group: which strategy is fastest, what that costs in quality, and how certain both are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from reporting.comparison.changes import SHORT
from reporting.comparison.equal_updates import listed
from reporting.comparison.significance import REFERENCE, SAME, UNDECIDED
from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.statistics.intervals import Ratio, ratio_interval
from reporting.views import table_format


def conclusion(group: RunGroup, confidence: float) -> str:
    """Return one or two sentences on the group; strategies that are known to be wrong are ignored.

    A strategy is called fastest only if its speed differs significantly from every other's, at the level of the
    group's intervals; otherwise the equally fast ones are named. One run of each gives no interval, so none is called
    fastest.
    """
    timed = [strategy for strategy in group.strategies if strategy.real_tokens_per_s and not strategy.known_wrong]
    if not timed:
        return f"Speeds cannot be compared here. {_qualities(group)}".strip()
    ordered = sorted(timed, key=_speed, reverse=True)
    if len(ordered) == 1:
        return f"{ordered[0].name} read {_rate(ordered[0])}. {_qualities(group)}".strip()
    level = 1 - (1 - confidence) / max(1, group.comparisons)
    if not _has_intervals(ordered, level):
        return f"{_names(ordered[:1], 'read most')}{_lead(ordered[:1], ordered)}{_costs(ordered[:1], group)}."
    leaders = _leaders(ordered, level)
    sentence = f"{_names(leaders)}{_lead(leaders, ordered)}{_costs(leaders, group)}."
    sound = [strategy for strategy in ordered if not _worse(strategy)]
    if not sound or not all(map(_worse, leaders)):
        return sentence
    best = _leaders(sound, level)
    return f"{sentence} Of the strategies that are not worse, {_names(best)}{_costs(best, group)}."


def _leaders(ordered: Sequence[StrategySummary], level: float) -> list[StrategySummary]:
    """Return the first strategy, and those that are not significantly slower: the interval of the ratio contains 1."""
    unsettled = [ratio is None or ratio.low is None or ratio.low <= 1 for ratio in _ratios(ordered, level)]
    return [ordered[0], *compress(ordered[1:], unsettled)]


def _ratios(ordered: Sequence[StrategySummary], level: float) -> list[Ratio | None]:
    """Return the ratio of the first strategy's speed to that of each other one; None without a common pair of runs."""
    figure = SHORT["speed"]
    speeds = [{run.slot: run.figures[figure] for run in own.runs if figure in run.figures} for own in ordered]
    return [ratio_interval(speeds[0], own, level) for own in speeds[1:]]


def _has_intervals(ordered: Sequence[StrategySummary], level: float) -> bool:
    """Return True if any two strategies have several pairs of runs."""
    return any(ratio is not None and ratio.low is not None for ratio in _ratios(ordered, level))


def _names(leaders: Sequence[StrategySummary], claim: str = "is fastest") -> str:
    """Return `packed is fastest, 209 real tokens/s`, or that several strategies do not differ significantly."""
    names = [own.name + (f" (which chose {', '.join(own.chose)})" if own.chose else "") for own in leaders]
    if len(leaders) == 1:
        return f"{names[0]} {claim}, {_rate(leaders[0])}"
    rates = [f"{_speed(leader):,.0f}" for leader in leaders]
    return f"{listed(names)} do not differ significantly in speed, {listed(rates)} real tokens/s"


def _lead(leaders: Sequence[StrategySummary], ordered: Sequence[StrategySummary]) -> str:
    """Return how many times as fast the first is as the reference, or as the second if it is the reference itself.

    Return nothing for a ratio whose interval contains 1, so that no strategy looks like the winner by chance.
    """
    fastest, second = ordered[0], ordered[1]
    subject = f"{fastest.name} is " if len(leaders) > 1 else ""
    ratio, other = None, REFERENCE
    if fastest.against_padmask:
        ratio = fastest.against_padmask.ratio
    elif fastest.name == REFERENCE and second.against_padmask and (inverse := second.against_padmask.ratio):
        low, high = (1 / end for end in reversed(inverse.bounds)) if inverse.bounds else (None, None)
        ratio, other = Ratio(inverse.n, 1 / inverse.mean, low, high), second.name
    if ratio is None or (ratio.bounds and ratio.bounds[0] <= 1 <= ratio.bounds[1]):
        return ""
    return f": {subject}{_times(ratio, other)}"


def _times(ratio: Ratio, other: str) -> str:
    """Return `2.00 times as fast as padmask (1.97 to 2.04)`."""
    text = f"{table_format.times(ratio.mean)} times as fast as {other}"
    if ratio.bounds is None:
        return f"{text} (one pair of runs, so it may be chance)"
    low, high = map(table_format.times, ratio.bounds)
    return f"{text} ({low} to {high})"


def _costs(leaders: Sequence[StrategySummary], group: RunGroup) -> str:
    return "".join(_cost(leader, group, "its" if len(leaders) == 1 else f"{leader.name}'s") for leader in leaders)


def _cost(strategy: StrategySummary, group: RunGroup, whose: str) -> str:
    verdict, metric = strategy.against_padmask, f"{group.metric} on {group.split}"
    if verdict is None:
        return ""
    by = f" ({table_format.signed(verdict.difference.mean, group.unit)})" if verdict.difference else ""
    if verdict.says.startswith(UNDECIDED):
        return f"; whether {whose} {metric} differs from {REFERENCE}'s is undecided{by}"
    if verdict.says.startswith(SAME):
        return f"; {whose} predictions on {group.split} are as good as {REFERENCE}'s on every example"
    if verdict.says == "equal":
        return f"; {whose} {metric} equals {REFERENCE}'s"
    return f"; {whose} {metric} against {REFERENCE}'s: {verdict.says}{by}"


def _worse(strategy: StrategySummary) -> bool:
    verdict = strategy.against_padmask
    return verdict is not None and verdict.says.startswith("worse")


def _qualities(group: RunGroup) -> str:
    """Return the quality of each strategy, for a group without speeds or with a single strategy."""
    texts = [
        f"{strategy.name} {table_format.decimal(strategy.quality.mean, group.unit)}"
        for strategy in group.strategies
        if strategy.quality and not strategy.known_wrong
    ]
    return f"{group.metric} on {group.split}: {', '.join(texts)}." if texts else ""


def _speed(strategy: StrategySummary) -> float:
    return strategy.real_tokens_per_s.median if strategy.real_tokens_per_s else 0.0


def _rate(strategy: StrategySummary) -> str:
    return f"{_speed(strategy):,.0f} real tokens/s"
