"""Notes on how the figures of a group were made, which a reader needs to judge its intervals."""

from __future__ import annotations

from reporting.comparison.significance import REFERENCE, ComparisonRule, Verdicts
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
