"""The sizes of the micro-batches of a whole plan, computed from host integers only.

Work that grows with the square of the padded width (attention) runs in blocks of rows of similar lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from runner.common.arrays import IntArray
from runner.ragged.updates import Updates

Together = Literal["all", "largest"]
BLOCK_PAIRS = 2**14  # cost of one more block, in pairs of a query and a key (docs/notes/performance.md)


@dataclass(frozen=True)
class Shapes:
    """The sizes of M micro-batches, (M,) each."""

    rows: IntArray
    widths: IntArray  # length of the longest text, at least 1 and rounded up to a multiple
    tokens: IntArray  # real tokens, or pieces of words where a model reads these
    cells: IntArray  # positions, padding included, in the rectangle or rectangles (`with_blocks`) of rows
    pairs: IntArray  # pairs of `cells` of the same row: the cost of attention

    @classmethod
    def of(cls, rows: IntArray, widths: IntArray, tokens: IntArray, texts: IntArray | None = None) -> Shapes:
        """Return the shapes of micro-batches in one rectangle each, of rows of one text, or of `texts` (M,) in all."""
        in_height = rows if texts is None else texts
        return cls(rows, widths, tokens, in_height * widths, in_height * widths**2)


def texts_in(lengths: IntArray) -> IntArray:
    """Return the number of texts of each row, (B,), from the `lengths` of rows (B,), or of their texts (B, texts).

    The texts are those of a pair, or the windows in which a model reads a long row; -1: the row has fewer texts.
    """
    return np.ones_like(lengths) if lengths.ndim == 1 else (lengths >= 0).sum(axis=1)


def longest_in(lengths: IntArray) -> IntArray:
    """Return the length of the longest text of each row, (B,), from `lengths` as in `texts_in`."""
    return lengths if lengths.ndim == 1 else lengths.max(axis=1)


def tokens_in(lengths: IntArray) -> IntArray:
    """Return the number of tokens of each row, (B,), from `lengths` as in `texts_in`."""
    return lengths if lengths.ndim == 1 else lengths.clip(min=0).sum(axis=1)


def places_in(lengths: IntArray) -> IntArray:
    """Return the places of each row in a rectangle, (B,), with padding within the row; `lengths` are as in `texts_in`.

    The texts of a row are as wide as the longest of them. So a micro-batch has no more places than its number of rows
    times the most places of a row, whatever the number of texts: plans need to know nothing about pairs and windows.
    """
    return texts_in(lengths) * longest_in(lengths)


def micro_batch_sizes(updates: IntArray, micro_batch: int | None) -> tuple[IntArray, IntArray]:
    """Return the rows of all micro-batches, (M,), and the micro-batches of each update, (U,), from its rows (U,)."""
    if micro_batch is None:
        return updates, np.ones_like(updates)
    pieces = -(-updates // micro_batch)
    rows = np.full(pieces.sum(), micro_batch)
    rows[np.cumsum(pieces) - 1] = updates - (pieces - 1) * micro_batch
    return rows, pieces


def shapes_of(
    updates: Sequence[IntArray], lengths: IntArray, micro_batch: int | None = None, width_multiple: int = 1
) -> Shapes:
    """Return the shapes of micro-batches: whole updates, or pieces of `micro_batch` rows.

    `lengths` are those of rows, (B,), or of their texts, (B, texts).
    """
    planned = Updates.of(updates)
    rows, _ = micro_batch_sizes(planned.sizes, micro_batch)
    starts = np.cumsum(rows) - rows
    ordered = lengths[planned.rows]
    texts = np.add.reduceat(texts_in(ordered), starts)
    widths = np.maximum(1, np.maximum.reduceat(longest_in(ordered), starts))
    tokens = np.add.reduceat(tokens_in(ordered), starts)
    return Shapes.of(rows, widths + -widths % width_multiple, tokens, texts)


def concatenate(shapes: Sequence[Shapes]) -> Shapes:
    """Concatenate shapes."""
    return Shapes(*(np.concatenate([getattr(part, field.name) for part in shapes]) for field in fields(Shapes)))


def with_blocks(shapes: Shapes, ordered: IntArray, together: Together) -> Shapes:
    """Return the shapes if texts, with `ordered` lengths (R,) or (R, texts), run in blocks of similar lengths.

    Count all blocks (`block_ends`) of a micro-batch, if they are in memory `together`, or only the one with the most
    pairs.
    """
    cells, pairs = shapes.cells.copy(), shapes.pairs.copy()
    for place, unsorted in enumerate(np.split(ordered, np.cumsum(shapes.rows)[:-1])):
        lengths = np.sort(unsorted[unsorted >= 0])
        ends = block_ends(lengths)
        if len(ends) > 1:
            rows, widths = np.diff(ends, prepend=0), lengths[ends - 1]
            counted = slice(None) if together == "all" else [int((rows * widths**2).argmax())]
            cells[place], pairs[place] = (rows * widths)[counted].sum(), (rows * widths**2)[counted].sum()
    return replace(shapes, cells=cells, pairs=pairs)


def block_ends(lengths: IntArray) -> IntArray:
    """Return the ends of blocks of rows of sorted `lengths` (B,) with the least sum of rows * longest^2 + BLOCK_PAIRS.

    The solution is exact, by dynamic programming over the distinct lengths v_j, where C_j rows have at most v_j tokens:

        A(j) = min over i < j of A(i) + v_j^2 (C_j - C_i) + BLOCK_PAIRS
    """
    n_rows = len(lengths)
    if not n_rows or n_rows * int(lengths[-1]) ** 2 - int((lengths**2).sum()) <= BLOCK_PAIRS:
        return np.array([n_rows])  # even a block for each row would save less than one block costs
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate(([0], np.cumsum(counts)))
    least = np.zeros(len(ends), dtype=np.int64)
    best_start = np.zeros(len(ends), dtype=np.int64)
    for j, length in enumerate(distinct, start=1):
        costs = least[:j] + length**2 * (ends[j] - ends[:j])
        best_start[j] = costs.argmin()
        least[j] = costs[best_start[j]] + BLOCK_PAIRS
    path = [len(distinct)]
    while best_start[path[-1]]:
        path.append(int(best_start[path[-1]]))
    return np.take(ends, path[::-1])
