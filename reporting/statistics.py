"""The few statistics of a comparison over seeds: means with intervals, medians with ranges, pairs by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean over `n` seeds and its Student t interval; one seed gives no interval (`low` and `high` are None)."""

    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Spread:
    """A median over `n` runs, and the range from the lowest to the highest."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Reached:
    """When runs reached a target: median and range in seconds, where `reached` of `n` runs got there.

    Runs that did not get there count as infinitely late, so the median is None when half of the runs or more failed
    to (an even number of runs takes the mean of the middle two); the range is that of the runs that did.
    """

    n: int
    reached: int
    median: float | None
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float], confidence: float) -> Mean | None:
    """mean +- t(n-1, (1+confidence)/2) * s / sqrt(n), with the sample's s; None when there are no values."""
    if not values:
        return None
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(1, mean, None, None)
    from scipy.special import stdtrit  # scipy.stats.t.ppf without the second that scipy.stats takes to import

    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * statistics.stdev(values) / math.sqrt(n)
    return Mean(n, mean, mean - half, mean + half)


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None when there are no values."""
    return Spread(len(values), statistics.median(values), min(values), max(values)) if values else None


def differences(values: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """value - base for each seed that both have, in the order of the seeds."""
    return [values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())]


def ratios(values: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """value / base for each seed that both have, in the order of the seeds; a base of 0 gives no ratio."""
    return [values[seed] / base[seed] for seed in sorted(values.keys() & base.keys()) if base[seed]]


def reached(seconds: Sequence[float | None]) -> Reached:
    """`seconds[i]` is when run i reached the target, None if it never did."""
    there = [second for second in seconds if second is not None]
    median = statistics.median([math.inf if second is None else second for second in seconds])
    return Reached(
        len(seconds),
        len(there),
        median if math.isfinite(median) else None,
        min(there, default=None),
        max(there, default=None),
    )
