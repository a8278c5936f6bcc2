"""Updates of rows of similar lengths, from buckets whose boundaries are optimal for the histogram of lengths.

Symbols: B rows; L distinct lengths v_1 < ... < v_L; C_j the number of rows with at most v_j tokens; K buckets at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import product

import numpy as np

from runner.batching.plan import shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import RowNumbers, Updates

MOST_PADDING = 0.04  # share of padding, 0 to 1, up to which more buckets are tried
_MOST_BUCKETS = 512  # that are tried, and at most two for each update, since fewer mix rows better
_FILLED = (1.0, 0.25, 0.1, 0.05, 0.025, 0.01)  # shares of padding for which an update is not filled (`update_ends`)
_MOST_UPDATES = 1.5  # times the fewest that are possible


@dataclass(frozen=True, kw_only=True)
class Bucketed:
    """A plan that shuffles rows within each bucket, cuts them in order of buckets, and shuffles the updates.

    What is left of a bucket begins an update that the next one fills, unless that pads too much (`chosen_buckets`).
    """

    batch_size: PositiveInt  # maximum number of rows of an update
    buckets: PositiveInt | None  # maximum number of buckets; None: as many as are needed

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        longest, ends = chosen_buckets(lengths, self.batch_size, self.buckets)
        order = shuffle_within(buckets_of(lengths, longest), rng)
        return shuffle_updates(Updates(order, ends), rng)


def chosen_buckets(lengths: IntArray, batch_size: int, buckets: int | None) -> tuple[IntArray, IntArray]:
    """Return the longest length of each bucket, (K,) ascending, and the ends of updates, (U,), of rows in their order.

    Small updates cost time, and many buckets mix rows less. So the fewest buckets (1, 2, 4, ...) are chosen with which
    full updates pad less than `MOST_PADDING`. If no number suffices, updates may be small: first where filling them
    pads most, and at most half as many again as full ones. If that does not suffice either, it is what pads least.

    All depends on how many rows have which length, and not on chance: padding is counted as if every update had a row
    as long as its last bucket.
    """
    return _chosen_buckets(np.bincount(lengths).tobytes(), batch_size, buckets)


@lru_cache(maxsize=16)
def _chosen_buckets(histogram: bytes, batch_size: int, buckets: int | None) -> tuple[IntArray, IntArray]:
    counts = np.frombuffer(histogram, dtype=np.int64)
    rows_up_to = np.cumsum(counts)
    n_rows, tokens = int(counts.sum()), int(counts @ np.arange(len(counts)))
    least, chosen = math.inf, (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    if not n_rows:
        return chosen
    tried = cache(partial(boundaries, counts))
    fewest = math.ceil(n_rows / batch_size)
    for filled, number in product(_FILLED, [buckets] if buckets else _numbers(counts, 2 * fewest)):
        bounds = tried(number)
        ends = update_ends(rows_up_to[bounds], bounds, batch_size, filled)
        places = _places(ends, rows_up_to[bounds], np.maximum(1, bounds))
        if places < least and len(ends) <= _MOST_UPDATES * fewest:
            least, chosen = places, (bounds, ends)
            if places - tokens < MOST_PADDING * places:
                break
    return chosen


def fewest_buckets(lengths: IntArray, padding: float) -> IntArray:
    """Return the longest length of each of the fewest buckets (1, 2, 4, ...) that pad less than this share.

    Padding is counted as if every row were as long as the longest of its bucket.
    """
    counts = np.bincount(lengths)
    bounds = np.zeros(0, dtype=np.int64)
    for number in _numbers(counts, _MOST_BUCKETS) if len(lengths) else ():
        bounds = boundaries(counts, number)
        places = int((np.diff(np.cumsum(counts)[bounds], prepend=0) * bounds).sum())
        if places - int(lengths.sum()) < padding * places:
            break
    return bounds


def _numbers(counts: IntArray, most: int) -> list[int]:
    """Return the numbers of buckets to try, ascending, up to the first that gives each length its own."""
    distinct = int(np.count_nonzero(counts))
    powers = [2**power for power in range(min(most, _MOST_BUCKETS).bit_length())]
    return [*(power for power in powers if power < distinct), *([distinct] if distinct <= powers[-1] else [])]


def _places(ends: IntArray, rows_up_to: IntArray, longest: IntArray) -> int:
    """Return the positions of all updates, if each is as wide as the bucket of its last row."""
    return int((np.diff(ends, prepend=0) * longest[np.searchsorted(rows_up_to, ends)]).sum())


def update_ends(rows_up_to: IntArray, longest: IntArray, batch_size: int, filled: float) -> IntArray:
    """Return the ends of updates, (U,), of rows in order of their buckets.

    An update has `batch_size` rows. It has fewer if the rows of the next bucket are so much longer that they would pad
    its own by more than `filled` of the places of a full update.

    Args:
        rows_up_to: (K,) number of rows of each bucket and of those before it.
        longest: (K,) length of the longest row of each bucket, ascending.
    """
    ends, start, before, places = [np.zeros(0, dtype=np.int64)], 0, 0, 0  # `start` and `places` of the open update
    for end, width, wider in zip(
        rows_up_to.tolist(), longest.tolist(), np.append(longest, 0)[1:].tolist(), strict=True
    ):
        full = (end - start) // batch_size
        if full:
            ends.append(start + batch_size * np.arange(1, full + 1))
            start, places = start + batch_size * full, 0
        places += (end - max(start, before)) * width
        before = end
        if (end - start) * wider - places > filled * batch_size * wider:
            ends.append(np.array([end]))
            start, places = end, 0
    return np.concatenate([*ends, [before] if start < before else []]).astype(np.int64)


def buckets_of(lengths: IntArray, longest: IntArray) -> RowNumbers:
    """Return the bucket of each row, (B,), from 0 for the shortest, by the `longest` length of each bucket, (K,)."""
    bucket = np.searchsorted(longest, np.arange(lengths.max(initial=0) + 1))  # of each length
    return bucket.astype(np.min_scalar_type(len(longest)))[lengths]


def boundaries(histogram: IntArray, buckets: int) -> IntArray:
    """Return the boundaries, (at most `buckets`,) ascending, that minimise the sum of (boundary - length) over rows.

    A boundary is the longest length of its bucket. `histogram` is the number of rows of each length from 0.

    The solution is exact, by dynamic programming: the least area of the rows up to v_j in k buckets is

        A_k(j) = min over i of A_(k-1)(i) + v_j (C_j - C_i)

    This area is the padded size if every update contained a row as long as its boundary. It approximates the padding of
    real updates, whose widths depend on which rows are drawn together.
    """
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
