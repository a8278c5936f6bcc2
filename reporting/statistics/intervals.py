"""The statistics of a comparison: means and ratios with intervals, medians with ranges, the noise of equal runs."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from runner.common.intervals import half_width, student_quantile

Slot = tuple[int, int, tuple[str, ...]]  # seed, turn, machine
K = TypeVar("K", int, Slot)
LARGEST_LOG = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values with its interval; a single value has none (`low` and `high` are None)."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends of the interval; None if there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class Mean(Interval):
    """A mean over `n` seeds with its Student t interval."""


class Ratio(Interval):
    """A geometric mean of `n` ratios with its interval."""


@dataclass(frozen=True)
class Spread:
    """A median over `n` runs with the range from the lowest to the highest value."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TimeToTarget:
    """The median time to a target and its range, in seconds or tokens; `reached` of `n` runs reached the target.

    A run that never reached it counts as infinitely late, so the median is None when half of the runs or more never
    did (with an even number of runs it is the mean of the middle two). The range covers the runs that did.
    """

    n: int
    reached: int
    median: float | None
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float], confidence: float) -> Mean | None:
    """Return mean +- t(n-1, (1+confidence)/2) * s / sqrt(n), s the sample's standard deviation; None without values."""
    if not values:
        return None
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(1, mean, None, None)
    half = half_width(values, confidence)
    return Mean(n, mean, mean - half, mean + half)


def spread(values: Sequence[float]) -> Spread | None:
    """Return median and range; None without values."""
    return Spread(len(values), statistics.median(values), min(values), max(values)) if values else None


def differences(values: Mapping[K, float], base: Mapping[K, float]) -> list[float]:
    """Return value - base for each key (such as a seed) that both have, in the order of the keys."""
    return [values[key] - base[key] for key in sorted(values.keys() & base.keys())]


def ratio_interval(values: Mapping[K, float], base: Mapping[K, float], confidence: float) -> Ratio | None:
    """Return the geometric mean of value / base over the keys that both have: exp of the t interval of the logs.

    Values that are not positive are left out; the result is None when no pair remains.
    """
    # In logs a ratio and its inverse are equally far from 1, so which strategy is the base does not matter.
    keys = sorted(key for key in values.keys() & base.keys() if values[key] > 0 and base[key] > 0)
    logs = [math.log(values[key] / base[key]) for key in keys]
    mean = mean_interval(logs, confidence)
    if mean is None:
        return None
    low, high = map(_exp, mean.bounds) if mean.bounds else (None, None)
    return Ratio(mean.n, _exp(mean.mean), low, high)


def _exp(log: float) -> float:
    """Return exp(log), infinite where it overflows: the interval of two very different ratios has no upper end."""
    return math.exp(log) if log < LARGEST_LOG else math.inf


def noise(equal: Sequence[Sequence[float]], confidence: float) -> Ratio | None:
    """Return how much the ratio of two equal runs varies around 1, or None if no run was repeated.

    `equal` holds the measurements of equal runs, one sequence for each set of them, in the order of their turns. `low`
    and `high` bound the ratio of two further equal runs: exp(-+ t(df) s sqrt(2)), with s the pooled standard deviation
    of the logs within equal runs. `n` is df, the sum of (runs - 1). `mean` is the geometric mean of last over first,
    which shows a drift.
    """
    # Logs, as speeds vary by a factor and not by an amount: then fast and slow strategies can share one deviation.
    logs = [[math.log(value) for value in values] for values in equal if len(values) > 1 and min(values) > 0]
    df = sum(len(values) - 1 for values in logs)
    if not df:
        return None
    squares = sum((value - statistics.fmean(values)) ** 2 for values in logs for value in values)
    half = student_quantile(df, confidence) * math.sqrt(2 * squares / df)
    drift = statistics.fmean(values[-1] - values[0] for values in logs)
    return Ratio(df, _exp(drift), _exp(-half), _exp(half))


def reached(when: Sequence[float | None]) -> TimeToTarget:
    """Summarise `when[i]`, the seconds (or tokens) after which run i reached the target; None if it never did."""
    times = [time for time in when if time is not None]
    median = statistics.median([math.inf if time is None else time for time in when]) if when else math.inf
    lowest, highest = min(times, default=None), max(times, default=None)
    return TimeToTarget(len(when), len(times), median if math.isfinite(median) else None, lowest, highest)
