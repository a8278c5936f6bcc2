"""Verdicts on a strategy against the reference: better, worse, equivalent or undecided; and its relative speed."""

from __future__ import annotations

from dataclasses import dataclass

from reporting.comparison import example_outcomes
from reporting.runs import measures
from reporting.runs.selection import Seeds, SelectedRuns, all_turns, first_turns
from reporting.statistics import intervals
from reporting.statistics.intervals import Mean, Ratio

REFERENCE = "padmask"  # the standard strategy: quality and speed of others are compared with it
UNDECIDED, SAME = "undecided", "equal on every example"


@dataclass(frozen=True)
class ComparisonRule:
    """The rule by which the strategies of a group are compared with the reference."""

    comparisons: int  # number of strategies that share a seed with the reference
    level: float  # level of each interval; corrected so that all of them hold at once
    margin: float  # a smaller difference does not matter; in units of the metric
    margin_text: str
    higher: bool  # true if higher values of the metric are better


@dataclass(frozen=True)
class QualityVerdict:
    """The verdict on a strategy against the reference. The intervals of all strategies of a group hold at once."""

    difference: Mean | None  # difference in quality, paired by seed
    on_examples: Mean | None  # the same (mean over `n` seeds), with an interval by a bootstrap over examples
    ratio: Ratio | None  # ratio of real tokens/s, paired by seed, turn and machine
    says: str  # the verdict on quality


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on the strategies of a group."""

    by_strategy: dict[str, QualityVerdict]
    problems: list[str]  # problems with the recorded outcomes of examples


def rule_for(selected: SelectedRuns, confidence: float, margin: float, unit: str, higher: bool) -> ComparisonRule:
    """Return the rule of a group, with Bonferroni's correction for its number of comparisons.

    The margin is in percentage points, or for other units in percent of the reference's figure. By the union bound, m
    intervals, each at 1 - (1 - confidence) / m, hold at once with at least `confidence`.
    """
    others = len(_compared(selected))
    level = 1 - (1 - confidence) / max(1, others)
    if unit == "%":
        return ComparisonRule(others, level, margin, f"{margin:.2f}", higher)
    mean = measures.mean(first_turns(selected.by_strategy.get(REFERENCE, {})).values(), measures.quality) or 0.0
    # R2 and correlations may be negative; a margin is a size.
    return ComparisonRule(others, level, margin / 100 * abs(mean), f"{margin:g} %", higher)


def verdicts(selected: SelectedRuns, rule: ComparisonRule) -> Verdicts:
    """Return the verdict on every strategy that shares a seed with the reference; the reference itself has none."""
    reference = selected.by_strategy.get(REFERENCE, {})
    others = _compared(selected)
    base = first_turns(reference)
    examples = example_outcomes.compare({name: first_turns(seeds) for name, seeds in others.items()}, base, rule.level)
    quality, speed = measures.by_seed(base, measures.quality), measures.by_slot(all_turns(reference), measures.speed)
    by_strategy = {}
    for name, seeds in others.items():
        gaps = intervals.differences(measures.by_seed(first_turns(seeds), measures.quality), quality)
        difference = intervals.mean_interval(gaps, rule.level)
        on_examples = examples.differences.get(name)
        by_strategy[name] = QualityVerdict(
            difference=difference,
            on_examples=on_examples,
            ratio=intervals.ratio_interval(measures.by_slot(all_turns(seeds), measures.speed), speed, rule.level),
            says=SAME if name in examples.same else quality_verdict(difference, on_examples, rule),
        )
    return Verdicts(by_strategy, examples.problems)


def _compared(selected: SelectedRuns) -> dict[str, Seeds]:
    """Return the strategies that share a seed with the reference."""
    reference, others = selected.by_strategy.get(REFERENCE, {}), selected.by_strategy.items()
    return {name: seeds for name, seeds in others if name != REFERENCE and seeds.keys() & reference}


def quality_verdict(over_seeds: Mean | None, on_examples: Mean | None, rule: ComparisonRule) -> str:
    """Return the verdict that both intervals support.

    This is conservative: each interval ignores the variation that the other measures.

    An interval that excludes 0 means `better` or `worse`; one within (-margin, margin) means `equivalent within` it,
    as two one-sided tests (TOST) would; both can hold. One seed has no interval over seeds: then examples alone
    decide, and the verdict ends with `(one seed)`.
    """
    seeds, examples = (interval.bounds if interval else None for interval in (over_seeds, on_examples))
    if not (ends := (seeds or ()) + (examples or ())):
        return UNDECIDED
    # Both intervals agree on a side, or on the margin, exactly if their union is on that side, or within the margin.
    lowest, highest = min(ends), max(ends)
    small = -rule.margin < lowest and highest < rule.margin
    if lowest == highest == 0:
        verdict = "equal"
    elif lowest > 0 or highest < 0:
        word = "better" if (lowest > 0) == rule.higher else "worse"
        verdict = f"{word}, by less than {rule.margin_text}" if small else word
    else:
        verdict = f"equivalent within {rule.margin_text}" if small else UNDECIDED
    return verdict if seeds or verdict == UNDECIDED else f"{verdict} (one seed)"
