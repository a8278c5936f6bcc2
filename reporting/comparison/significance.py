"""What may be concluded of a strategy against the reference: better, worse, equivalent or nothing; and its speed."""

from __future__ import annotations

from dataclasses import dataclass

from reporting.comparison import example_outcomes
from reporting.runs import measures
from reporting.runs.selection import Chosen, every, first
from reporting.statistics import intervals
from reporting.statistics.intervals import Mean, Ratio

REFERENCE = "padmask"  # quality and speed are compared with it, since it is the standard
UNDECIDED, SAME = "undecided", "equal on every example"


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


@dataclass(frozen=True)
class Verdicts:
    by_strategy: dict[str, Verdict]
    problems: list[str]  # with the records of examples


def rule_for(chosen: Chosen, confidence: float, margin: float, higher: bool) -> Rule:
    """Bonferroni's correction: m intervals, each at 1 - (1 - confidence) / m, hold together with `confidence`."""
    reference = chosen.by_strategy.get(REFERENCE, {})
    others = [seeds for name, seeds in chosen.by_strategy.items() if name != REFERENCE and seeds.keys() & reference]
    level = 1 - (1 - confidence) / max(1, len(others))
    if higher:
        return Rule(len(others), level, margin, f"{margin:.2f}", higher)
    mean = measures.mean(first(reference).values(), measures.quality) or 0.0
    return Rule(len(others), level, margin / 100 * mean, f"{margin:g} %", higher)


def verdicts(chosen: Chosen, rule: Rule) -> Verdicts:
    """Of every strategy that shares a seed with the reference; the reference itself has none."""
    reference = chosen.by_strategy.get(REFERENCE, {})
    others = {
        name: seeds
        for name, seeds in chosen.by_strategy.items()
        if name != REFERENCE and seeds.keys() & reference.keys()
    }
    base = first(reference)
    examples = example_outcomes.compared({name: first(seeds) for name, seeds in others.items()}, base, rule.level)
    quality, speed = measures.by_seed(base, measures.quality), measures.by_slot(every(reference), measures.speed)
    made = {}
    for name, seeds in others.items():
        gaps = intervals.differences(measures.by_seed(first(seeds), measures.quality), quality)
        difference = intervals.mean_interval(gaps, rule.level)
        on_examples = examples.differences.get(name)
        made[name] = Verdict(
            difference=difference,
            on_examples=on_examples,
            ratio=intervals.ratio_interval(measures.by_slot(every(seeds), measures.speed), speed, rule.level),
            says=SAME if name in examples.same else says(difference, on_examples, rule),
        )
    return Verdicts(made, examples.problems)


def says(over_seeds: Mean | None, on_examples: Mean | None, rule: Rule) -> str:
    """What both intervals agree on: conservative, as each leaves out what the other measures.

    An interval beyond 0 says `better` or `worse`; one within (-margin, margin) says `equivalent within` it, as two
    one-sided tests would; both can hold. One seed has no interval over seeds: examples alone decide, which is said.
    """
    seeds, examples = _bounds(over_seeds), _bounds(on_examples)
    if not seeds and not examples:
        return UNDECIDED
    lowest, highest = min(seeds + examples), max(seeds + examples)
    small = -rule.margin < lowest and highest < rule.margin
    if lowest == highest == 0:
        said = "equal"
    elif lowest > 0 or highest < 0:
        word = "better" if (lowest > 0) == rule.higher else "worse"
        said = f"{word}, by less than {rule.margin_text}" if small else word
    else:
        said = f"equivalent within {rule.margin_text}" if small else UNDECIDED
    return said if seeds or said == UNDECIDED else f"{said} (one seed)"


def _bounds(interval: Mean | None) -> tuple[float, ...]:
    if interval is None or interval.low is None or interval.high is None:
        return ()
    return interval.low, interval.high
