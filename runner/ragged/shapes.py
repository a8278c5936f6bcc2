"""The sizes of the micro-batches of a whole plan, computed from host integers only."""

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
        rows: (M,) number of rows.
        widths: (M,) length of the longest row, at least 1 and rounded up to a multiple.
        tokens: (M,) number of real tokens.
        cells: (M,) number of positions, padding included, in the rectangle or rectangles (`with_blocks`) of rows.
        pairs: (M,) number of pairs of positions of the same row in them: the cost of attention.
    """

    rows: IntArray
    widths: IntArray
    tokens: IntArray
    cells: IntArray
    pairs: IntArray

    @classmethod
    def of(cls, rows: IntArray, widths: IntArray, tokens: IntArray) -> Shapes:
        """Return the shapes of micro-batches in one rectangle each."""
        return cls(rows, widths, tokens, rows * widths, rows * widths**2)


def shapes_of(updates: Updates, lengths: IntArray, micro_batch: int | None = None, width_multiple: int = 1) -> Shapes:
    """Return the shapes of micro-batches: whole updates, or pieces of `micro_batch` rows."""
    whole = np.array([len(update) for update in updates])
    most = int(whole.max()) if micro_batch is None else micro_batch
    pieces = -(-whole // most)
    rows = np.full(pieces.sum(), most)
    rows[np.cumsum(pieces) - 1] = whole - (pieces - 1) * most
    starts = np.cumsum(rows) - rows
    ordered = lengths[np.concatenate(updates)]
    widths = np.maximum(1, np.maximum.reduceat(ordered, starts))
    return Shapes.of(rows, widths + -widths % width_multiple, np.add.reduceat(ordered, starts))


def concatenate(shapes: Sequence[Shapes]) -> Shapes:
    """Concatenate shapes."""
    return Shapes(*(np.concatenate([getattr(part, field.name) for part in shapes]) for field in fields(Shapes)))


def with_blocks(shapes: Shapes, ordered: IntArray, together: Literal["all", "largest"]) -> Shapes:
    """Return the shapes if rows run in blocks of similar lengths (`runner.ragged.blocks`).

    Args:
        shapes: of the same micro-batches in one rectangle each.
        ordered: the lengths of all rows, micro-batch after micro-batch.
        together: count all blocks of a micro-batch, or only the one with the most pairs.
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
