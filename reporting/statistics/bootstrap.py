"""A paired bootstrap over test examples, for metrics that are ratios of sums over examples.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 10 and 13; Koehn, Statistical significance tests
for machine translation evaluation (2004). Shapes: n examples, R resamples, K columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reporting.statistics.intervals import Mean

FloatArray = npt.NDArray[np.float64]
Formula = Callable[[FloatArray], FloatArray]  # a ratio of sums -> the metric, elementwise

FEWEST_RESAMPLES = 2000
MOST_RESAMPLES = 100_000  # takes seconds for 2,000 examples; only intervals near 100 % need more
RESAMPLES_BEYOND = 20  # at least so many resamples outside each bound: with fewer, a bound is mostly chance
SEED = 20250615  # every report draws the same examples, for all runs with equally many examples
CHUNK = 4_000_000  # weights held at a time: 32 MB


@dataclass(frozen=True)
class ExampleSums:
    """The terms that each example adds to the numerator and to the denominator of a run's metric, (n,) each."""

    numerator: FloatArray
    denominator: FloatArray


def resamples_for(level: float) -> int:
    """Return how many resamples put `RESAMPLES_BEYOND` outside each bound at this level, within the two limits."""
    return min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, math.ceil(2 * RESAMPLES_BEYOND / (1 - level) - 1e-9)))


def mean_differences(
    pairs: Sequence[Sequence[tuple[ExampleSums, ExampleSums]]], formula: Formula, level: float, resamples: int
) -> list[Mean]:
    """Return each strategy's difference to the reference, averaged over seeds, with a percentile interval.

    `pairs[i]` holds, for each seed of strategy i, the sums of its examples and of the reference's; n is the same in
    all of them. Every resample is shared by all seeds and strategies.
    """
    columns, places = _unique_columns([sums for seeds in pairs for pair in seeds for sums in pair])
    # Row 0 weighs every example once, which gives the observed metrics; the other rows are resamples. Reusing the same
    # draws for both runs of a pair keeps what is common to them (hard and easy examples) out of their difference.
    metrics = _metrics(np.vstack([np.ones(len(columns)) @ columns, resampled(columns, resamples)]), places, formula)
    means, start = [], 0
    for seeds in pairs:
        # (1 + R, 2 * seeds): for each seed the strategy's own metric, then the reference's
        paired = metrics[:, start : start + 2 * len(seeds)]
        start += 2 * len(seeds)
        gaps = (paired[:, 0::2] - paired[:, 1::2]).mean(axis=1)
        low, high = np.quantile(gaps[1:], [(1 - level) / 2, (1 + level) / 2])
        means.append(Mean(len(seeds), float(gaps[0]), float(low), float(high)))
    return means


def resampled(columns: FloatArray, resamples: int) -> FloatArray:
    """Return (R, K) sums of columns (n, K) over n examples drawn with replacement: multinomial weights @ columns."""
    n, rng = len(columns), np.random.default_rng(SEED)
    sums: list[FloatArray] = []
    rows = max(1, CHUNK // n)
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        # Shifting row i by i * n lets a single bincount count the draws of all r resamples.
        drawn = rng.integers(n, size=(r, n)) + n * np.arange(r)[:, None]
        sums.append(np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n).astype(np.float64) @ columns)
    return np.vstack(sums)


def _unique_columns(sums: Sequence[ExampleSums]) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Return the distinct columns (n, K), and (runs, 2) indices of each run's numerator and denominator among them."""
    # Denominators (tokens, examples) are mostly the same in all runs, so this about halves the matrix product.
    columns = [column for run_sums in sums for column in (run_sums.numerator, run_sums.denominator)]
    keys = [column.tobytes() for column in columns]
    distinct = dict(zip(keys, columns, strict=True))
    places = {key: place for place, key in enumerate(distinct)}
    return np.stack(list(distinct.values()), axis=1), np.array([places[key] for key in keys]).reshape(-1, 2)


def _metrics(sums: FloatArray, places: npt.NDArray[np.intp], formula: Formula) -> FloatArray:
    """Return (R, runs) metrics from sums (R, K). The ratio is 0 where a resample's denominator is 0 (no span drawn)."""
    above, below = sums[:, places[:, 0]], sums[:, places[:, 1]]
    return formula(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
