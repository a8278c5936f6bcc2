"""Updates of about equal size in memory, regardless of the lengths of their rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from runner.batching.bucketed import boundaries, buckets_of, fewest_buckets
from runner.batching.plan import cut_at, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import RowNumbers, Updates

_PADDING = 0.025  # share of padding within buckets; updates with rows of two buckets pad more


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """A plan that shuffles rows within buckets of similar lengths, with updates of rows x longest <= `max_tokens`.

    A row longer than the budget is an update by itself. The longest length is used as it is, not rounded up to
    `width_multiple`, and counts as at least 1.
    """

    max_tokens: PositiveInt | None  # maximum number of positions of an update, with padding
    batch_size: PositiveInt | None  # without `max_tokens` the budget is so many rows of mean length
    buckets: PositiveInt | None  # maximum number of buckets; None: as many as pad little

    def __post_init__(self) -> None:
        if self.max_tokens is None and self.batch_size is None:
            raise ValueError("max_tokens=null and batch_size=null: give one of them, which limits updates")

    def budget(self, lengths: IntArray) -> int:
        """Return the maximum number of positions of an update of rows of these `lengths` (B,)."""
        if self.max_tokens is not None:
            return self.max_tokens
        assert self.batch_size is not None
        return math.ceil(self.batch_size * float(np.maximum(1, lengths).mean())) if len(lengths) else 1

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        longest = boundaries(np.bincount(lengths), self.buckets) if self.buckets else fewest_buckets(lengths, _PADDING)
        order = shuffle_within(buckets_of(lengths, longest), rng)
        widths = np.maximum(1, lengths.astype(np.int32)[order])
        return shuffle_updates(cut_at(order, starts_within(self.budget(lengths), widths)), rng)


def starts_within(budget: int, widths: RowNumbers) -> IntArray:
    """Return the starts, (U,), of updates that hold as many rows of `widths` (B,), in order, as the budget allows."""
    starts, place = [], 0
    while place < len(widths):
        starts.append(place)
        most = budget // int(widths[place])  # the longest row is no shorter than the first, so no more rows can fit
        longest = np.maximum.accumulate(widths[place : place + most])
        fits = longest * np.arange(1, len(longest) + 1) <= budget  # true up to some row, then false
        place += max(1, int(np.count_nonzero(fits)))
    return np.array(starts, dtype=np.int64)
