"""The sizes of what goes through the model at once, of a whole plan. Host integers only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import IntArray

Updates = list[IntArray]


@dataclass(frozen=True)
class Shapes:
    """The sizes of M micro-batches.

    Attributes:
        rows: (M,).
        widths: (M,) tokens of the longest row, at least 1 and rounded up to a multiple.
        tokens: (M,) real tokens.
    """

    rows: IntArray
    widths: IntArray
    tokens: IntArray

    @property
    def cells(self) -> IntArray:
        """(M,) places of the rectangle that holds the rows."""
        return self.rows * self.widths


def shapes_of(updates: Updates, lengths: IntArray, micro_batch: int | None = None, width_multiple: int = 1) -> Shapes:
    """The shapes of what goes through the model at once: whole updates, or pieces of them of `micro_batch` rows."""
    whole = np.array([len(update) for update in updates])
    most = int(whole.max()) if micro_batch is None else micro_batch
    pieces = -(-whole // most)
    rows = np.full(pieces.sum(), most)
    rows[np.cumsum(pieces) - 1] = whole - (pieces - 1) * most
    starts = np.cumsum(rows) - rows
    ordered = lengths[np.concatenate(updates)]
    widths = np.maximum(1, np.maximum.reduceat(ordered, starts))
    return Shapes(rows, widths + -widths % width_multiple, np.add.reduceat(ordered, starts))
