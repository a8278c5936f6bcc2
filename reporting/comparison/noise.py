"""The machine's noise: how far the speeds of equal runs differ; which ratios are within it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reporting.comparison.significance import REFERENCE, Verdict
from reporting.runs import measures
from reporting.runs.selection import Chosen
from reporting.statistics import intervals
from reporting.statistics.intervals import Ratio


def speed_noise(chosen: Chosen, confidence: float) -> Ratio | None:
    """Of the speed of runs that are equal but for their turn, on one machine."""
    equal: dict[tuple[object, ...], list[float]] = {}
    for run in chosen.runs:  # in the order of their turns
        if (speed := measures.speed(run)) is not None:
            equal.setdefault((run.strategy, run.seed, run.machine), []).append(speed)
    return intervals.noise(list(equal.values()), confidence)


def within(verdicts: Mapping[str, Verdict], noise: Ratio | None) -> list[str]:
    """A sentence on each strategy whose ratio to the reference may as well be noise.

    The mean log of n ratios of equal runs is spread by 1 / sqrt(n) of that of one.
    """
    if noise is None or noise.high is None:
        return []
    said = []
    for name, verdict in verdicts.items():
        ratio = verdict.ratio
        if ratio is None:
            continue
        half = math.log(noise.high) / math.sqrt(ratio.n)
        if abs(math.log(ratio.mean)) <= half:
            pairs = f" over {ratio.n} pairs" if ratio.n > 1 else ""
            said.append(
                f"{name} is {ratio.mean:.3f} times as fast as {REFERENCE}: within the noise of the machine, where "
                f"equal runs give {math.exp(-half):.3f} to {math.exp(half):.3f}{pairs}."
            )
    return said
