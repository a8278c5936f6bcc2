"""The sizes of what goes through the model at once, of a whole plan. Host integers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from runner.common.arrays import IntArray
from runner.ragged.blocks import block_ends

Updates = list[IntArray]


@dataclass(frozen=True)
class Shapes:
    """The sizes of M micro-batches.

    Attributes:
        rows: (M,).
        widths: (M,) tokens of the longest row, at least 1 and rounded up to a multiple.
        tokens: (M,) real tokens.
        cells: (M,) places of the rectangle, or the rectangles (`in_blocks`), that hold the rows.
        pairs: (M,) pairs of places of one row there.
    """

    rows: IntArray
    widths: IntArray
    tokens: IntArray
    cells: IntArray
    pairs: IntArray

    @classmethod
    def of(cls, rows: IntArray, widths: IntArray, tokens: IntArray) -> Shapes:
        """Each in one rectangle."""
        return cls(rows, widths, tokens, rows * widths, rows * widths**2)


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
    return Shapes.of(rows, widths + -widths % width_multiple, np.add.reduceat(ordered, starts))


def joined(shapes: Sequence[Shapes]) -> Shapes:
    """One after another."""
    return Shapes(*(np.concatenate([getattr(one, field.name) for one in shapes]) for field in fields(Shapes)))


def in_blocks(shapes: Shapes, ordered: IntArray, together: Literal["all", "largest"]) -> Shapes:
    """The same, their rows standing in blocks of close lengths (`runner.ragged.blocks`).

    Args:
        ordered: the lengths of all rows, one micro-batch after another.
        together: whether all blocks of a micro-batch are counted, or the one that has most pairs.
    """
    cells, pairs = shapes.cells.copy(), shapes.pairs.copy()
    for place, unsorted in enumerate(np.split(ordered, np.cumsum(shapes.rows)[:-1])):
        lengths = np.sort(unsorted)
        ends = block_ends(lengths)
        if len(ends) > 1:
            rows, widths = np.diff(ends, prepend=0), lengths[ends - 1]
            counted = slice(None) if together == "all" else [int((rows * widths**2).argmax())]
            cells[place], pairs[place] = (rows * widths)[counted].sum(), (rows * widths**2)[counted].sum()
    return replace(shapes, cells=cells, pairs=pairs)
