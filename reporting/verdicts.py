"""What may be concluded of a strategy against the reference: better, worse, equivalent or nothing; and its speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reporting import measures, statistics
from reporting.chosen import Chosen, every, first
from reporting.statistics import Mean, Ratio

REFERENCE = "padmask"  # quality and speed are compared with it, since it is the standard
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Rule:
    """How a group's strategies are compared with the reference."""

    comparisons: int  # strategies that share a seed with the reference
    level: float  # confidence of each interval, so that all of them hold at once
    margin: float  # in units of the metric: a smaller difference does not matter
    margin_text: str
    higher: bool  # is better


@dataclass(frozen=True)
class Verdict:
    """A strategy against the reference. The intervals of all strategies of a group hold at once."""

    difference: Mean | None  # of quality, paired by seed
    on_examples: Mean | None  # the same difference (mean over `n` seeds), its interval by a bootstrap of test examples
    ratio: Ratio | None  # of real tokens/s, paired by seed, turn and machine
    says: str  # of quality


def rule_for(chosen: Chosen, confidence: float, margin: float, higher: bool) -> Rule:
    """Bonferroni's correction: m intervals, each at 1 - (1 - confidence) / m, hold together with `confidence`."""
    reference = chosen.by_strategy.get(REFERENCE, {})
    others = [seeds for name, seeds in chosen.by_strategy.items() if name != REFERENCE and seeds.keys() & reference]
    level = 1 - (1 - confidence) / max(1, len(others))
    if higher:
        return Rule(len(others), level, margin, f"{margin:.2f}", higher)
    mean = measures.mean(first(reference).values(), measures.quality) or 0.0
    return Rule(len(others), level, margin / 100 * mean, f"{margin:g} %", higher)


def verdict(name: str, chosen: Chosen, rule: Rule) -> Verdict | None:
    """None for the reference itself, and for a strategy that shares no seed with it."""
    seeds, reference = chosen.by_strategy[name], chosen.by_strategy.get(REFERENCE, {})
    if name == REFERENCE or not seeds.keys() & reference:
        return None
    gaps = statistics.differences(
        measures.by_seed(first(seeds), measures.quality), measures.by_seed(first(reference), measures.quality)
    )
    speeds, others = (measures.by_slot(every(each), measures.speed) for each in (seeds, reference))
    difference, on_examples = statistics.mean_interval(gaps, rule.level), None
    return Verdict(
        difference=difference,
        on_examples=on_examples,
        ratio=statistics.ratio_interval(speeds, others, rule.level),
        says=says([difference, on_examples], rule),
    )


def says(intervals: Sequence[Mean | None], rule: Rule) -> str:
    """What all intervals agree on: conservative, as each leaves out what the other measures.

    Those without bounds (one seed) and None are not asked. An interval beyond 0 says `better` or `worse`; one
    within (-margin, margin) says `equivalent within` it, as two one-sided tests would; both can hold.
    """
    bounds = [(each.low, each.high) for each in intervals if each and each.low is not None and each.high is not None]
    if not bounds:
        return UNDECIDED
    lowest, highest = min(low for low, _ in bounds), max(high for _, high in bounds)
    if lowest == highest == 0:
        return "equal"
    small = -rule.margin < lowest and highest < rule.margin
    if lowest > 0 or highest < 0:
        word = "better" if (lowest > 0) == rule.higher else "worse"
        return f"{word}, by less than {rule.margin_text}" if small else word
    return f"equivalent within {rule.margin_text}" if small else UNDECIDED


def speed_noise(chosen: Chosen, confidence: float) -> Ratio | None:
    """Of the speed of runs that are equal but for their turn, on one machine."""
    equal: dict[tuple[object, ...], list[float]] = {}
    for run in chosen.runs:  # in the order of their turns
        if (speed := measures.speed(run)) is not None:
            equal.setdefault((run.strategy, run.seed, run.machine), []).append(speed)
    return statistics.noise(list(equal.values()), confidence)


def notes(rule: Rule, noise: Ratio | None, confidence: float) -> list[str]:
    """How the figures against the reference were made."""
    if not rule.comparisons:
        return []
    percent = f"{100 * confidence:g} %"
    said = []
    if rule.comparisons > 1:
        said.append(
            f"{rule.comparisons} strategies are compared with {REFERENCE}: each interval against it is at "
            f"{100 * rule.level:.4g} %, so that all hold together at {percent} (Bonferroni)."
        )
    if noise is None:
        said.append("The machine's noise was not measured: run each strategy again with `turn=1,2` to see it.")
    else:
        said.append(
            f"Noise of the machine: the ratio of the speeds of two equal runs lies in {noise.low:.3f} to "
            f"{noise.high:.3f} ({percent}; {noise.n} runs repeated in other turns)."
        )
    return said
