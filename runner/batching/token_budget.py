"""Updates of about equal size in memory, whatever the lengths of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runner.batching.bucketed import buckets_of
from runner.batching.plan import cut_at, group_starts, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """Rows shuffled within buckets of close lengths, then each update grown while rows x longest <= `max_tokens`.

    A row longer than the budget is an update by itself. The width is counted before it is rounded up to
    `width_multiple`, and as 1 for empty rows.

    Args:
        max_tokens: cells of an update with its padding, at most.
        batch_size: rows of an update, at most (None: only the budget limits them).
        buckets: how many buckets, at most; fewer mix more and pad more.
    """

    max_tokens: PositiveInt
    batch_size: PositiveInt | None
    buckets: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        bucket = buckets_of(lengths, self.buckets)
        order = shuffle_within(bucket, rng)
        widths = np.maximum(1, lengths[order])
        edges = [*group_starts(bucket[order]).tolist(), len(order)]
        starts = [start for begin, end in pairwise(edges) for start in self._grow(widths[begin:end], begin)]
        return shuffle_updates(cut_at(order, np.array(starts, dtype=np.int64)), rng)

    def _grow(self, widths: IntArray, offset: int) -> list[int]:
        """Where the updates of one bucket begin, counted from `offset`."""
        starts, place = [], 0
        while place < len(widths):
            starts.append(offset + place)
            most = self.max_tokens // int(widths[place])  # the longest is no shorter than the first
            most = most if self.batch_size is None else min(most, self.batch_size)
            longest = np.maximum.accumulate(widths[place : place + most])
            fits = longest * np.arange(1, len(longest) + 1) <= self.max_tokens  # true, then false
            place += max(1, int(np.count_nonzero(fits)))
        return starts
