"""What a comparison comes to, in a sentence a group: which strategy is fastest, what it costs in quality, how sure."""

from __future__ import annotations

from reporting.comparison.significance import REFERENCE, SAME, UNDECIDED
from reporting.comparison.summary import Group, Strategy
from reporting.statistics.intervals import Ratio
from reporting.views import table_format


def answer(group: Group) -> str:
    """One or two sentences; those that are known to be wrong are no answer."""
    timed = [each for each in group.strategies if each.real_tokens_per_s and not each.known_wrong]
    if not timed:
        return f"Speeds cannot be compared here. {_qualities(group)}".strip()
    ordered = sorted(timed, key=_speed, reverse=True)
    fastest = ordered[0]
    if len(ordered) == 1:
        return f"{fastest.name} read {_rate(fastest)}. {_qualities(group)}".strip()
    chose = f" (which chose {', '.join(fastest.chose)})" if fastest.chose else ""
    said = f"{fastest.name}{chose} is fastest, {_rate(fastest)}{_lead(fastest, ordered)}{_cost(fastest, group)}."
    return said + _next_best(fastest, ordered, group)


def _lead(fastest: Strategy, ordered: list[Strategy]) -> str:
    """How many times as fast as the reference; of the reference itself, as the next one."""
    verdict = fastest.against_padmask
    if verdict and verdict.ratio:
        return f": {_times(verdict.ratio, REFERENCE)}"
    second = ordered[1]
    if fastest.name == REFERENCE and second.against_padmask and (ratio := second.against_padmask.ratio):
        return f": {_times(_inverse(ratio), second.name)}"
    return ""


def _times(ratio: Ratio, of: str) -> str:
    """`2.00 times as fast as padmask (1.97 to 2.04)`."""
    said = f"{table_format.times(ratio.mean)} times as fast as {of}"
    if ratio.low is None or ratio.high is None:
        return f"{said} (one pair of runs, so it may be chance)"
    chance = ", so it may be chance" if ratio.low <= 1 <= ratio.high else ""
    return f"{said} ({table_format.times(ratio.low)} to {table_format.times(ratio.high)}{chance})"


def _inverse(ratio: Ratio) -> Ratio:
    low, high = (None if bound is None else 1 / bound for bound in (ratio.high, ratio.low))
    return Ratio(ratio.n, 1 / ratio.mean, low, high)


def _cost(strategy: Strategy, group: Group) -> str:
    verdict, metric = strategy.against_padmask, f"{group.metric} on {group.split}"
    if verdict is None:
        return ""
    by = ""
    if verdict.difference:
        by = f" ({table_format.signed(verdict.difference.mean, group.metric)})"
    if verdict.says.startswith(UNDECIDED):
        return f"; whether its {metric} differs from {REFERENCE}'s is undecided{by}"
    if verdict.says.startswith(SAME):
        return f"; its answers on {group.split} are as good as {REFERENCE}'s on every example"
    if verdict.says == "equal":
        return f"; its {metric} equals {REFERENCE}'s"
    return f"; its {metric} against {REFERENCE}'s: {verdict.says}{by}"


def _next_best(fastest: Strategy, ordered: list[Strategy], group: Group) -> str:
    """Where speed costs quality: the fastest of those that are not worse."""
    if not _worse(fastest):
        return ""
    others = [each for each in ordered[1:] if not _worse(each)]
    if not others:
        return ""
    return f" Of those not worse {others[0].name} is fastest, {_rate(others[0])}{_cost(others[0], group)}."


def _worse(strategy: Strategy) -> bool:
    verdict = strategy.against_padmask
    return verdict is not None and verdict.says.startswith("worse")


def _qualities(group: Group) -> str:
    """Of a group without speeds, or of one strategy."""
    known = [each for each in group.strategies if each.quality and not each.known_wrong]
    named = ", ".join(
        f"{each.name} {table_format.decimal(each.quality.mean, group.metric)}" for each in known if each.quality
    )
    return f"{group.metric} on {group.split}: {named}." if named else ""


def _speed(strategy: Strategy) -> float:
    return strategy.real_tokens_per_s.median if strategy.real_tokens_per_s else 0.0


def _rate(strategy: Strategy) -> str:
    return f"{_speed(strategy):,.0f} real tokens/s"
