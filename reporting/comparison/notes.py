"""Notes on how the figures of a group were made, and the noise of the machine: how far equal runs differ in speed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reporting.comparison.significance import REFERENCE, ComparisonRule, QualityVerdict, Verdicts
from reporting.runs import measures
from reporting.runs.selection import SelectedRuns
from reporting.statistics import intervals
from reporting.statistics.bootstrap import resamples_for
from reporting.statistics.intervals import Ratio


def notes(rule: ComparisonRule, verdicts: Verdicts, noise: Ratio | None, split: str, confidence: float) -> list[str]:
    """Return the notes of a group; none if no strategy is compared."""
    compared = verdicts.by_strategy.values()
    if not compared:
        return []
    percent = f"{100 * confidence:g} %"
    lines = []
    if rule.comparisons > 1:
        lines.append(
            f"{rule.comparisons} strategies are compared with {REFERENCE}: each interval against it is at "
            f"{100 * rule.level:.4g} %, so that all of them hold at once at {percent} (Bonferroni)."
        )
    if any(verdict.on_examples for verdict in compared):
        lines.append(
            f"Intervals over seeds: the same {split}, other runs; on examples: the same runs, other examples "
            f"({resamples_for(rule.level):,} paired resamples). A verdict needs both to agree; equivalent means "
            f"within {rule.margin_text} (--margin)."
        )
    elif any(verdict.difference for verdict in compared):
        lines.append(
            f"Intervals are over seeds only: the outcomes of single {split} examples (outcomes.npz) were not recorded. "
            f"Equivalent means within {rule.margin_text} (--margin)."
        )
    if noise is None or noise.low is None or noise.high is None:
        lines.append(
            "The noise of the machine was not measured: `turn=1,2` in a sweep measures it by running everything twice."
        )
    else:
        lines.append(
            f"Noise of the machine: the speeds of two equal runs have a ratio of {noise.low:.3f} to "
            f"{noise.high:.3f} ({percent}; {noise.n} repeated run{'s' if noise.n > 1 else ''})."
        )
    return lines


def speed_noise(selected: SelectedRuns, confidence: float) -> Ratio | None:
    """Return the noise of speed among runs on one machine that are equal except for their turn."""
    equal: dict[tuple[object, ...], list[float]] = {}
    for run in selected.runs:  # in the order of their turns
        if (speed := measures.speed(run)) is not None:
            equal.setdefault((run.strategy, run.seed, run.machine), []).append(speed)
    return intervals.noise(list(equal.values()), confidence)


def ratios_within_noise(verdicts: Mapping[str, QualityVerdict], noise: Ratio | None) -> list[str]:
    """Return a sentence for each strategy whose speed ratio to the reference could be noise alone."""
    if noise is None or noise.high is None:
        return []
    sentences = []
    for name, verdict in verdicts.items():
        if (ratio := verdict.ratio) is None:
            continue
        # The log of one noisy ratio lies within log(noise.high); the mean of n of them spreads by 1 / sqrt(n) of that.
        half = math.log(noise.high) / math.sqrt(ratio.n)
        if abs(math.log(ratio.mean)) <= half:
            pairs = f" over {ratio.n} pairs" if ratio.n > 1 else ""
            sentences.append(
                f"{name} is {ratio.mean:.3f} times as fast as {REFERENCE}, which is within the noise of the machine: "
                f"equal runs give {math.exp(-half):.3f} to {math.exp(half):.3f}{pairs}."
            )
    return sentences
