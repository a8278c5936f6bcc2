"""Updates of about equal size in memory, regardless of the lengths of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runner.batching.bucketed import buckets_of
from runner.batching.plan import cut_at, group_starts, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import Updates


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """A plan that shuffles rows within buckets of similar lengths, with updates of rows x longest <= `max_tokens`.

    A row longer than the budget is an update by itself. The longest length is used as it is, not rounded up to
    `width_multiple`, and counts as at least 1.
    """

    max_tokens: PositiveInt  # maximum number of positions of an update, with padding
    batch_size: PositiveInt | None  # maximum number of rows of an update (None: only the budget limits it)
    buckets: PositiveInt  # maximum number of buckets; fewer buckets mix rows better and need more padding

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        bucket = buckets_of(lengths, self.buckets)
        order = shuffle_within(bucket, rng)
        edges = [*group_starts(bucket[order]).tolist(), len(order)]
        starts = [
            start
            for first, end in pairwise(edges)
            for start in self._grow(np.maximum(1, lengths[order[first:end]]), first)
        ]
        return shuffle_updates(cut_at(order, np.array(starts, dtype=np.int64)), rng)

    def _grow(self, widths: IntArray, offset: int) -> list[int]:
        """Return the starts of one bucket's updates, counted from `offset`."""
        starts, place = [], 0
        while place < len(widths):
            starts.append(offset + place)
            # the longest row is no shorter than the first, so no more rows than this can fit
            most = self.max_tokens // int(widths[place])
            most = most if self.batch_size is None else min(most, self.batch_size)
            longest = np.maximum.accumulate(widths[place : place + most])
            fits = longest * np.arange(1, len(longest) + 1) <= self.max_tokens  # true up to some row, then false
            place += max(1, int(np.count_nonzero(fits)))
        return starts
