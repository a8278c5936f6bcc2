"""Rows of close lengths: buckets whose boundaries are optimal for the histogram of lengths.

Symbols: L distinct lengths v_1 < ... < v_L; C_j the number of rows of at most v_j; K boundaries at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut_groups, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """Rows shuffled within each bucket, then the updates of all buckets shuffled.

    The last update of every bucket may be small.

    Args:
        batch_size: rows of an update, at most.
        buckets: how many buckets, at most.
    """

    batch_size: PositiveInt
    buckets: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        bucket = buckets_of(lengths, self.buckets)
        order = shuffle_within(bucket, rng)
        return shuffle_updates(cut_groups(order, bucket[order], self.batch_size), rng)


def buckets_of(lengths: IntArray, buckets: int) -> IntArray:
    """(B,) the bucket of each row, from 0 for the shortest."""
    bucket: IntArray = np.searchsorted(boundaries(lengths, buckets), lengths)
    return bucket


def boundaries(lengths: IntArray, buckets: int) -> IntArray:
    """(at most `buckets`,) the longest length of each bucket, rising: those with the least sum of (boundary - length).

    Exact, by dynamic programming: the least area of the rows up to v_j in k buckets is

        A_k(j) = min over i of A_(k-1)(i) + v_j (C_j - C_i)

    That area is what padding would be if every update held a row as long as its boundary. So it stands in for
    the padding of the real updates, whose widths are those of the rows that chance brings together.
    """
    histogram = np.bincount(lengths)
    distinct = np.flatnonzero(histogram)
    if len(distinct) <= buckets:
        return distinct
    counts = np.concatenate(([0], np.cumsum(histogram[distinct])))
    area = np.concatenate(([0], distinct * counts[1:]))
    last_before = []  # for each k from 2 and each j, the i of the minimum: where the bucket below ends
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
    """(L,) the leftmost i in 0..L that minimises area[i] - distinct[j] * counts[i], for each j.

    The matrix is totally monotone, since lengths and counts rise: the i of a row is never left of the i of a row above
    (Aggarwal et al., 1987). So the middle rows are found between the minima of their neighbours, all rows of
    one level at once: O(L) work a level, O(L log L) in all. An i beyond j needs no exclusion: it would mean rows
    longer than v_j, which cost more than they take off.
    """
    n_rows, last = len(distinct), len(area) - 1
    found = np.zeros(n_rows, dtype=np.int64)
    step = 1 << (n_rows.bit_length() - 1)
    while step:
        middle = np.arange(step - 1, n_rows, 2 * step)
        low = np.where(middle >= step, found[middle - step], 0)
        high = np.where(middle + step < n_rows, found[np.minimum(middle + step, n_rows - 1)], last)
        widths = high - low + 1
        starts = np.cumsum(widths) - widths
        column = np.repeat(low - starts, widths) + np.arange(widths.sum())
        value = area[column] - np.repeat(distinct[middle], widths) * counts[column]
        smallest = np.repeat(np.minimum.reduceat(value, starts), widths)
        hits = np.flatnonzero(value == smallest)
        found[middle] = column[hits[np.searchsorted(hits, starts)]]
        step //= 2
    return found
