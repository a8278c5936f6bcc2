"""`Updates`: which rows form each update of an epoch, compact enough for hundreds of millions of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray

RowNumbers = npt.NDArray[np.integer]  # int32 where they fit, to halve the memory of a plan


class Updates(Sequence[IntArray]):
    """A sequence of the row numbers of U updates, (R,) int64 each; a slice is a view.

    Args:
        rows: (R,) row numbers, update after update.
        ends: (U,) place in `rows` at which each update ends, ascending.
    """

    def __init__(self, rows: RowNumbers, ends: IntArray) -> None:
        self.rows, self.ends = rows, ends

    @classmethod
    def of(cls, updates: Sequence[IntArray]) -> Updates:
        """Return the same updates in this form."""
        if isinstance(updates, Updates):
            return updates
        sizes = np.array([len(update) for update in updates], dtype=np.int64)
        return cls(np.concatenate(updates) if len(sizes) else sizes, np.cumsum(sizes))

    @property
    def sizes(self) -> IntArray:
        """The number of rows of each update, (U,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def starts(self) -> IntArray:
        """The place in `rows` at which each update starts, (U,)."""
        return self.ends - self.sizes

    def parts(self, rows: int) -> Iterator[Updates]:
        """Yield consecutive updates together, with at most about this number of `rows` at once."""
        firsts = np.flatnonzero(np.diff(self.starts // rows, prepend=-1)).tolist()
        for first, end in pairwise([*firsts, len(self)]):
            yield self[first:end]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> IntArray: ...
    @overload
    def __getitem__(self, place: slice) -> Updates: ...
    def __getitem__(self, place: int | slice) -> IntArray | Updates:
        if not isinstance(place, slice):
            place = range(len(self))[place]
            start = int(self.ends[place - 1]) if place else 0
            return self.rows[start : int(self.ends[place])].astype(np.int64)
        first, end, step = place.indices(len(self))
        if step != 1:
            return Updates.of([self[index] for index in range(first, end, step)])
        ends = self.ends[first : max(first, end)]
        start = int(self.ends[first - 1]) if first else 0
        return Updates(self.rows[start : int(ends[-1])] if len(ends) else self.rows[:0], ends - start)

    def __iter__(self) -> Iterator[IntArray]:
        start = 0
        for end in self.ends.tolist():
            yield self.rows[start:end].astype(np.int64)
            start = end


def row_numbers(n_rows: int) -> RowNumbers:
    """Return the numbers of `n_rows` rows, ascending, in the smallest of int32 and int64 that holds them."""
    return np.arange(n_rows, dtype=np.int32 if n_rows <= np.iinfo(np.int32).max else np.int64)
