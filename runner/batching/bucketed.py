"""Updates of rows of similar lengths, from buckets whose boundaries are optimal for the histogram of lengths.

Symbols: B rows; L distinct lengths v_1 < ... < v_L; C_j the number of rows with at most v_j tokens; K buckets at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut_groups, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import RowNumbers, Updates


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """A plan that shuffles rows within each bucket, and then all updates; a bucket's last update may be small."""

    batch_size: PositiveInt  # maximum number of rows of an update
    buckets: PositiveInt  # maximum number of buckets

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        bucket = buckets_of(lengths, self.buckets)
        order = shuffle_within(bucket, rng)
        return shuffle_updates(cut_groups(order, bucket[order], self.batch_size), rng)


def buckets_of(lengths: IntArray, buckets: int) -> RowNumbers:
    """Return the bucket of each row, (B,), from 0 for the shortest rows."""
    bucket = np.searchsorted(boundaries(lengths, buckets), np.arange(lengths.max(initial=0) + 1))  # of each length
    return bucket.astype(np.min_scalar_type(buckets))[lengths]


def boundaries(lengths: IntArray, buckets: int) -> IntArray:
    """Return the boundaries, (at most `buckets`,) ascending, that minimise the sum of (boundary - length) over rows.

    A boundary is the longest length of its bucket.

    The solution is exact, by dynamic programming: the least area of the rows up to v_j in k buckets is

        A_k(j) = min over i of A_(k-1)(i) + v_j (C_j - C_i)

    This area is the padded size if every update contained a row as long as its boundary. It approximates the padding of
    real updates, whose widths depend on which rows are drawn together.
    """
    histogram = np.bincount(lengths)
    distinct = np.flatnonzero(histogram)
    if len(distinct) <= buckets:
        return distinct
    counts = np.concatenate(([0], np.cumsum(histogram[distinct])))
    area = np.concatenate(([0], distinct * counts[1:]))
    last_before = []  # for each k >= 2 and each j the best i, which is the end of the bucket below
    for _ in range(1, buckets):
        cut = row_minima(area, distinct, counts)
        area = np.concatenate(([0], area[cut] + distinct * (counts[1:] - counts[cut])))
        last_before.append(cut)
    ends = [len(distinct)]
    for cut in reversed(last_before):
        if ends[-1] > 0:
            ends.append(int(cut[ends[-1] - 1]))
    used = np.unique([end for end in ends if end > 0])
    return np.take(distinct, used - 1)


def row_minima(area: IntArray, distinct: IntArray, counts: IntArray) -> IntArray:
    """Return for each j the smallest i in 0..L that minimises area[i] - distinct[j] * counts[i], (L,).

    The matrix of these values is totally monotone, since lengths and counts rise: the best i never decreases with j
    (Aggarwal et al., 1987). So the best i of a middle row is between those of its neighbours. All rows of one level of
    the bisection are searched at once, with O(L) work per level and O(L log L) in total. An i > j needs no exclusion:
    it would include rows longer than v_j, whose area is more than what they save.
    """
    n_rows, last = len(distinct), len(area) - 1
    best = np.zeros(n_rows, dtype=np.int64)
    step = 1 << (n_rows.bit_length() - 1)
    while step:
        # candidates of all middle rows are concatenated; the minimum of each segment comes from one `reduceat`
        middle = np.arange(step - 1, n_rows, 2 * step)
        low = np.where(middle >= step, best[middle - step], 0)
        high = np.where(middle + step < n_rows, best[np.minimum(middle + step, n_rows - 1)], last)
        widths = high - low + 1
        starts = np.cumsum(widths) - widths
        column = np.repeat(low - starts, widths) + np.arange(widths.sum())
        value = area[column] - np.repeat(distinct[middle], widths) * counts[column]
        smallest = np.repeat(np.minimum.reduceat(value, starts), widths)
        hits = np.flatnonzero(value == smallest)
        best[middle] = column[hits[np.searchsorted(hits, starts)]]
        step //= 2
    return best
