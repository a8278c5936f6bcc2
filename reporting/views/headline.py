"""The headline of a group: which strategy is fastest, what that costs in quality, and how certain both are."""

from __future__ import annotations

from reporting.comparison.significance import REFERENCE, SAME, UNDECIDED
from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.statistics.intervals import Ratio
from reporting.views import table_format


def answer(group: RunGroup) -> str:
    """Return one or two sentences on the group; strategies that are known to be wrong are ignored."""
    timed = [strategy for strategy in group.strategies if strategy.real_tokens_per_s and not strategy.known_wrong]
    if not timed:
        return f"Speeds cannot be compared here. {_qualities(group)}".strip()
    ordered = sorted(timed, key=_speed, reverse=True)
    fastest = ordered[0]
    if len(ordered) == 1:
        return f"{fastest.name} read {_rate(fastest)}. {_qualities(group)}".strip()
    chose = f" (which chose {', '.join(fastest.chose)})" if fastest.chose else ""
    sentence = f"{fastest.name}{chose} is fastest, {_rate(fastest)}{_lead(fastest, ordered)}{_cost(fastest, group)}."
    return sentence + _next_best(fastest, ordered, group)


def _lead(fastest: StrategySummary, ordered: list[StrategySummary]) -> str:
    """Return how many times as fast it is as the reference; if it is the reference, as the second fastest."""
    verdict = fastest.against_padmask
    if verdict and verdict.ratio:
        return f": {_times(verdict.ratio, REFERENCE)}"
    second = ordered[1]
    if fastest.name == REFERENCE and second.against_padmask and (ratio := second.against_padmask.ratio):
        return f": {_times(_inverse(ratio), second.name)}"
    return ""


def _times(ratio: Ratio, other: str) -> str:
    """Return `2.00 times as fast as padmask (1.97 to 2.04)`."""
    text = f"{table_format.times(ratio.mean)} times as fast as {other}"
    if ratio.low is None or ratio.high is None:
        return f"{text} (one pair of runs, so it may be chance)"
    chance = ", so it may be chance" if ratio.low <= 1 <= ratio.high else ""
    return f"{text} ({table_format.times(ratio.low)} to {table_format.times(ratio.high)}{chance})"


def _inverse(ratio: Ratio) -> Ratio:
    low, high = (None if bound is None else 1 / bound for bound in (ratio.high, ratio.low))
    return Ratio(ratio.n, 1 / ratio.mean, low, high)


def _cost(strategy: StrategySummary, group: RunGroup) -> str:
    verdict, metric = strategy.against_padmask, f"{group.metric} on {group.split}"
    if verdict is None:
        return ""
    by = ""
    if verdict.difference:
        by = f" ({table_format.signed(verdict.difference.mean, group.unit)})"
    if verdict.says.startswith(UNDECIDED):
        return f"; whether its {metric} differs from {REFERENCE}'s is undecided{by}"
    if verdict.says.startswith(SAME):
        return f"; its predictions on {group.split} are as good as {REFERENCE}'s on every example"
    if verdict.says == "equal":
        return f"; its {metric} equals {REFERENCE}'s"
    return f"; its {metric} against {REFERENCE}'s: {verdict.says}{by}"


def _next_best(fastest: StrategySummary, ordered: list[StrategySummary], group: RunGroup) -> str:
    """Return a sentence on the fastest strategy that is not worse, if the fastest of all is."""
    if not _worse(fastest):
        return ""
    others = [strategy for strategy in ordered[1:] if not _worse(strategy)]
    if not others:
        return ""
    best = others[0]
    return f" Of the strategies that are not worse, {best.name} is fastest, {_rate(best)}{_cost(best, group)}."


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
