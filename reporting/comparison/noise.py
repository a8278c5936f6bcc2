"""The noise of the machine: how far the speeds of equal runs differ, and which ratios are within that."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reporting.comparison.significance import REFERENCE, QualityVerdict
from reporting.runs import measures
from reporting.runs.selection import SelectedRuns
from reporting.statistics import intervals
from reporting.statistics.intervals import Ratio


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
        ratio = verdict.ratio
        if ratio is None:
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
