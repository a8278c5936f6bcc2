"""A paired bootstrap of test examples, for figures that are ratios of sums over examples.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 10 and 13; Koehn, Statistical significance tests
for machine translation evaluation (2004). Shapes: n examples, R resamples, K columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reporting.statistics.intervals import Mean

FloatArray = npt.NDArray[np.float64]
Formula = Callable[[FloatArray], FloatArray]  # a ratio of sums -> the metric, elementwise

FEWEST_RESAMPLES = 2000
MOST_RESAMPLES = 100_000  # seconds for 2,000 examples; more is asked for by intervals near 100 % alone
BEYOND = 20  # resamples beyond either bound, at least: where fewer are, a bound is mostly chance
SEED = 20250615  # the same examples are drawn in every report, and for all runs with as many examples
CHUNK = 4_000_000  # weights at a time: 32 MB


@dataclass(frozen=True)
class Sums:
    """What each example adds to the numerator and to the denominator of a run's figure, (n,) each."""

    numerator: FloatArray
    denominator: FloatArray


def resamples_for(level: float) -> int:
    """So many that `BEYOND` of them lie beyond either bound at this level, but not fewer or more than the limits."""
    return min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, math.ceil(2 * BEYOND / (1 - level) - 1e-9)))


def mean_differences(
    pairs: Sequence[Sequence[tuple[Sums, Sums]]], formula: Formula, level: float, resamples: int
) -> list[Mean]:
    """For each strategy the difference of the figure to the reference's, mean over seeds, with a percentile interval.

    `pairs[i]` holds, for each seed of strategy i, what its examples and the reference's add; all have the same n. One
    draw of examples serves all seeds and strategies.
    """
    columns, places = _columns([sums for seeds in pairs for pair in seeds for sums in pair])
    drawn = _figures(np.vstack([np.ones(len(columns)) @ columns, resampled(columns, resamples)]), places, formula)
    found, at = [], 0
    for seeds in pairs:
        # (1 + R, 2 * seeds): of the seeds in turn, its own and the reference's
        mine = drawn[:, at : at + 2 * len(seeds)]
        at += 2 * len(seeds)
        gaps = (mine[:, 0::2] - mine[:, 1::2]).mean(axis=1)
        low, high = np.quantile(gaps[1:], [(1 - level) / 2, (1 + level) / 2])
        found.append(Mean(len(seeds), float(gaps[0]), float(low), float(high)))
    return found


def resampled(columns: FloatArray, resamples: int) -> FloatArray:
    """(R, K) sums of columns (n, K) over n examples drawn with replacement: multinomial weights times columns."""
    return np.vstack([drawn @ columns for drawn in _weights(len(columns), resamples)])


def _weights(n: int, resamples: int) -> Iterator[FloatArray]:
    """(r, n) how often each example was drawn, in chunks of r resamples."""
    rng = np.random.default_rng(SEED)
    rows = max(1, CHUNK // n)
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        drawn = rng.integers(n, size=(r, n)) + n * np.arange(r)[:, None]
        yield np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def _columns(sums: Sequence[Sums]) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """(n, K) columns that differ, and (runs, 2) where each run's numerator and denominator stand among them."""
    places: dict[bytes, int] = {}
    columns: list[FloatArray] = []
    found = []
    for each in sums:
        for column in (each.numerator, each.denominator):
            key = column.tobytes()
            if key not in places:
                places[key] = len(columns)
                columns.append(column)
            found.append(places[key])
    return np.stack(columns, axis=1), np.array(found).reshape(-1, 2)


def _figures(sums: FloatArray, places: npt.NDArray[np.intp], formula: Formula) -> FloatArray:
    """(R, runs) of sums (R, K). Where nothing was drawn that counts (no span at all), the ratio is 0."""
    above, below = sums[:, places[:, 0]], sums[:, places[:, 1]]
    return formula(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
