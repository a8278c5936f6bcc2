"""The few statistics of a comparison: means and ratios with intervals, medians with ranges, the noise of equal runs."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Slot = tuple[int, int, tuple[str, ...]]  # seed, turn, machine
K = TypeVar("K", int, Slot)
LARGEST_LOG = math.log(sys.float_info.max)


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
class Ratio:
    """A geometric mean of `n` ratios and its interval; a single ratio has none (`low` and `high` are None)."""

    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Reached:
    """When runs reached a target: median and range in seconds or tokens, where `reached` of `n` runs got there.

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
    half = _student(n - 1, confidence) * statistics.stdev(values) / math.sqrt(n)
    return Mean(n, mean, mean - half, mean + half)


def _student(df: int, confidence: float) -> float:
    """The quantile of Student's t that bounds a two-sided interval."""
    from scipy.special import stdtrit  # scipy.stats.t.ppf without the second that scipy.stats takes to import

    return float(stdtrit(df, (1 + confidence) / 2))


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None when there are no values."""
    return Spread(len(values), statistics.median(values), min(values), max(values)) if values else None


def differences(values: Mapping[K, float], base: Mapping[K, float]) -> list[float]:
    """value - base for each key (a seed, say) that both have, in the order of the keys."""
    return [values[key] - base[key] for key in sorted(values.keys() & base.keys())]


def ratio_interval(values: Mapping[K, float], base: Mapping[K, float], confidence: float) -> Ratio | None:
    """Of value / base for each key that both have: exp of the Student t interval of the log ratios.

    Values that are not positive have no ratio; None when there is none at all.
    """
    logs = [math.log(values[key] / base[key]) for key in sorted(_positive(values) & _positive(base))]
    mean = mean_interval(logs, confidence)
    if mean is None:
        return None
    low, high = (None if bound is None else _exp(bound) for bound in (mean.low, mean.high))
    return Ratio(mean.n, _exp(mean.mean), low, high)


def _exp(log: float) -> float:
    """Infinite, where two wildly different ratios give an interval without an end."""
    return math.exp(log) if log < LARGEST_LOG else math.inf


def _positive(values: Mapping[K, float]) -> set[K]:
    return {key for key, value in values.items() if value > 0}


def noise(equal: Sequence[Sequence[float]], confidence: float) -> Ratio | None:
    """How far the ratio of two equal runs strays from 1. Each of `equal` holds what equal runs measured, in turn.

    `low` and `high` hold the ratio of two more of them with this confidence: exp(-+ t(df) s sqrt(2)), s the standard
    deviation of the logs within equal runs, pooled; `n` = df, the runs less one in each. `mean` is the geometric mean
    of the last over the first: a drift. None where nothing was run twice.
    """
    logs = [[math.log(value) for value in values] for values in equal if len(values) > 1 and min(values) > 0]
    df = sum(len(each) - 1 for each in logs)
    if not df:
        return None
    squares = sum((value - statistics.fmean(each)) ** 2 for each in logs for value in each)
    half = _student(df, confidence) * math.sqrt(2 * squares / df)
    drift = statistics.fmean(each[-1] - each[0] for each in logs)
    return Ratio(df, _exp(drift), _exp(-half), _exp(half))


def reached(when: Sequence[float | None]) -> Reached:
    """`when[i]` is after how many seconds (or tokens) run i reached the target, None if it never did."""
    there = [each for each in when if each is not None]
    median = statistics.median([math.inf if each is None else each for each in when]) if when else math.inf
    return Reached(
        len(when),
        len(there),
        median if math.isfinite(median) else None,
        min(there, default=None),
        max(there, default=None),
    )
