"""Updates of rows of similar lengths, from buckets whose boundaries are optimal for the histogram of lengths.

Symbols: B rows; L distinct lengths v_1 < ... < v_L; C_j the number of rows with at most v_j tokens; K buckets at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from runner.batching.plan import Plan, longest_of, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import RowNumbers, Updates

MOST_PADDING = 0.038  # share of padding up to which more buckets are tried: every epoch then stays under 4 %
_MOST_FILLED = 0.015  # share of an update's places for which it is not filled with longer rows
_SAMPLE, _MOST_TRIED = 2**16, 512  # rows of the data set that a trial plans, and buckets


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """A plan that shuffles rows within each bucket, cuts them in order of buckets, and shuffles the updates.

    What is left of a bucket begins an update that the next one fills, unless that would pad too much (`update_ends`).
    """

    batch_size: PositiveInt  # number of rows of an update
    buckets: PositiveInt | None  # maximum number of buckets; None: `fewest_buckets`

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        longest = boundaries(lengths, self.buckets or fewest_buckets(self, lengths))
        order = shuffle_within(buckets_of(lengths, longest), rng)
        rows_up_to = np.cumsum(np.bincount(lengths))[longest]
        return shuffle_updates(Updates(order, update_ends(rows_up_to, longest, self.batch_size)), rng)


def update_ends(rows_up_to: IntArray, longest: IntArray, batch_size: int) -> IntArray:
    """Return the ends of updates, (U,), of rows in order of their buckets.

    An update has `batch_size` rows. It has fewer if the rows of the next bucket are so much longer that they would pad
    its own by more than `_MOST_FILLED` of the places of a full update.

    Args:
        rows_up_to: (K,) number of rows of each bucket and of those before it.
        longest: (K,) length of the longest row of each bucket, ascending.
    """
    ends, start, before, places = list[int](), 0, 0, 0  # of the open update: its start, and its places if it ended here
    for end, width, wider in zip(rows_up_to.tolist(), longest.tolist(), [*longest[1:].tolist(), 0], strict=True):
        ends += range(start + batch_size, end + 1, batch_size)
        if ends and ends[-1] > start:
            start, places = ends[-1], 0
        places += (end - max(start, before)) * width
        before = end
        if (end - start) * wider - places > _MOST_FILLED * batch_size * wider:
            ends.append(end)
            start, places = end, 0
    return np.array(ends if start == before else [*ends, before], dtype=np.int64)


def fewest_buckets(plan: Plan, lengths: IntArray) -> int:
    """Return the fewest buckets (1, 2, 4, ...) with which a plan pads at most `MOST_PADDING`.

    Fewer buckets mix rows better. The padding is that of a trial with these `lengths` (B,), or a sample of them. If no
    number suffices, each length has a bucket.
    """
    return _fewest_buckets(plan, np.bincount(lengths).tobytes())  # type: ignore[arg-type]  # plans are hashable


@lru_cache(maxsize=64)
def _fewest_buckets(plan: Plan, histogram: bytes) -> int:
    ends = np.cumsum(np.frombuffer(histogram, dtype=np.int64))
    n_rows = int(ends[-1]) if len(ends) else 0
    lengths = np.searchsorted(ends, np.arange(0, n_rows, 1 + n_rows // _SAMPLE), side="right")
    distinct, buckets = len(np.unique(lengths)), 1
    while buckets < min(distinct, _MOST_TRIED):
        tried = replace(plan, buckets=buckets)  # type: ignore[type-var]  # plans are dataclasses
        updates = Updates.of(tried(lengths, np.random.default_rng(0)))
        places = int((updates.sizes * np.maximum(1, longest_of(lengths, updates))).sum())
        if places - int(lengths.sum()) <= MOST_PADDING * places:
            return buckets
        buckets *= 2
    return max(1, distinct)


def buckets_of(lengths: IntArray, longest: IntArray) -> RowNumbers:
    """Return the bucket of each row, (B,), from 0 for the shortest, by the `longest` length of each bucket, (K,)."""
    bucket = np.searchsorted(longest, np.arange(lengths.max(initial=0) + 1))  # of each length
    return bucket.astype(np.min_scalar_type(len(longest)))[lengths]


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
