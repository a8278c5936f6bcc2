"""How the figures of a group were made, in plain sentences: what a reader needs to judge its intervals."""

from __future__ import annotations

from reporting.comparison.significance import REFERENCE, Rule, Verdicts
from reporting.statistics.bootstrap import resamples_for
from reporting.statistics.intervals import Ratio


def notes(rule: Rule, verdicts: Verdicts, noise: Ratio | None, split: str, confidence: float) -> list[str]:
    """Nothing where no strategy is compared."""
    made = verdicts.by_strategy.values()
    if not made:
        return []
    percent = f"{100 * confidence:g} %"
    said = []
    if rule.comparisons > 1:
        said.append(
            f"{rule.comparisons} strategies are compared with {REFERENCE}: each interval against it is at "
            f"{100 * rule.level:.4g} %, so that all hold together at {percent} (Bonferroni)."
        )
    if any(each.on_examples for each in made):
        said.append(
            f"Over seeds: {split} as it is, other runs; on examples: these runs, other examples "
            f"({resamples_for(rule.level):,} paired resamples). A verdict is what both say; equivalent means "
            f"within {rule.margin_text} (--margin)."
        )
    elif any(each.difference for each in made):
        said.append(
            f"Intervals are over seeds alone: what each example of {split} adds (outcomes.npz) is not on record. "
            f"Equivalent means within {rule.margin_text} (--margin)."
        )
    if noise is None or noise.low is None or noise.high is None:
        said.append("The machine's noise was not measured: `turn=1,2` in a sweep runs everything twice and shows it.")
    else:
        said.append(
            f"Noise of the machine: the ratio of the speeds of two equal runs lies in {noise.low:.3f} to "
            f"{noise.high:.3f} ({percent}; {noise.n} repeated run{'s' if noise.n > 1 else ''})."
        )
    return said
