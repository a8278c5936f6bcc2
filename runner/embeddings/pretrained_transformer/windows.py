"""Rows of words as rows of pieces: special pieces around them, and overlapping windows of rows that are too long.

Everything is computed on the host from its copy of the ids, so nothing waits for a device.

Shapes: B rows of N words in all; W windows of M pieces in all, special ones included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.common.arrays import BoolArray, IntArray
from runner.embeddings.pretrained_transformer.pieces import PieceTable, Specials
from runner.ragged.rows import Rows


@dataclass(frozen=True)
class Windows:
    """The pieces that a model reads for some rows of words, and where the pieces of each word are among them."""

    pieces: IntArray  # (M,)
    segments: IntArray  # (M,) the segment of each piece: 1 in the second text of a pair, else 0
    lengths: IntArray  # (W,) number of pieces of each window
    row: IntArray  # (W,) the row of each window
    place: IntArray  # (P,) for each piece of a word: its index in `pieces`, within the window chosen for it
    word_lengths: IntArray  # (N,) number of pieces of each word; P is their sum
    first: IntArray  # (B,) index of each row's first piece, special or not; 0 for an empty row
    last: IntArray  # (B,) index of each row's last piece


def windows_of(
    words: IntArray,
    rows: Rows,
    table: PieceTable,
    specials: Specials,
    longest: int | None,
    overlap: int,
    between: int,
    causal: bool = False,
) -> Windows:
    """Return the windows of rows of `words` (N,); `between` is the word id between the two texts of a pair.

    A row of more than `longest` pieces, special ones included, is read in windows of that length. Neighbouring windows
    share at least `overlap` pieces. A piece's vector is taken from the window in which it is farthest
    from an edge; ties go to the earlier one. With `causal` only the edge before it matters, and windows start at the
    same pieces whatever comes later in the row.
    """
    starts, word_lengths = table.offsets[words], np.diff(table.offsets)[words]
    offsets = np.concatenate(([0], np.cumsum(word_lengths)))
    pieces = table.pieces[np.repeat(starts - offsets[:-1], word_lengths) + np.arange(offsets[-1])]
    row_starts = offsets[rows.host_offsets]  # (B+1,) start of each row among the pieces
    row_lengths = np.diff(row_starts)
    n_before, count = len(specials.before), specials.count
    size, step, per_row = _plan(row_lengths, count, longest, overlap)
    row = np.repeat(np.arange(rows.n_rows), per_row)
    number = np.arange(len(row)) - np.repeat(np.cumsum(per_row) - per_row, per_row)  # index of each window in its row
    start = number * step
    if not causal:  # the last window ends where its row ends, so that it is as long as the others
        start = np.minimum(start, np.maximum(0, row_lengths[row] - size))
    inner = np.minimum(row_lengths[row] - start, size)  # number of pieces of words in each window
    lengths = inner + count
    ends = np.cumsum(lengths)
    window_starts = ends - lengths
    laid = np.empty(int(lengths.sum()), dtype=np.int64)
    for at, piece in enumerate(specials.before):
        laid[window_starts + at] = piece
    for at, piece in enumerate(reversed(specials.after), start=1):
        laid[ends - at] = piece
    is_second = _after(words == between, rows).repeat(word_lengths)  # (P,) true in the second text of a pair
    segments = np.zeros(len(laid), dtype=np.int64)
    of_window = np.repeat(np.arange(len(row)), inner)
    inside = np.arange(len(of_window)) - np.repeat(np.cumsum(inner) - inner, inner)  # index of each piece in its window
    source = row_starts[row][of_window] + start[of_window] + inside
    target = window_starts[of_window] + n_before + inside
    laid[target], segments[target] = pieces[source], is_second[source]
    for at in range(1, len(specials.after) + 1):  # the special pieces at the end belong to the text before them
        segments[ends - at] = np.where(inner > 0, segments[np.maximum(ends - len(specials.after) - 1, 0)], 0)
    # Choose, among the windows that hold a piece, the one in which it is farthest from an edge.
    from_edge = inside if causal else np.minimum(inside, inner[of_window] - 1 - inside)
    order = np.lexsort((-of_window, from_edge, source))
    place = np.empty(len(pieces), dtype=np.int64)
    place[source[order]] = target[order]  # of several writes to an index, numpy keeps the last
    first_window = np.cumsum(per_row) - per_row
    last = np.maximum(ends[first_window + per_row - 1] - 1, 0)
    return Windows(laid, segments, lengths, row, place, word_lengths, window_starts[first_window], last)


def window_lengths(
    words: IntArray, rows: Rows, table: PieceTable, n_special: int, longest: int | None, overlap: int
) -> IntArray:
    """Return the number of pieces of each window of each row, (B, W), with special ones; -1: it has fewer windows."""
    offsets = np.concatenate(([0], np.cumsum(np.diff(table.offsets)[words])))
    row_lengths = np.diff(offsets[rows.host_offsets])
    size, _, per_row = _plan(row_lengths, n_special, longest, overlap)
    number = np.arange(int(per_row.max(initial=1)))
    # all windows of a long row have the same length
    return np.where(number < per_row[:, None], np.minimum(row_lengths, size)[:, None] + n_special, -1)


def _plan(row_lengths: IntArray, n_special: int, longest: int | None, overlap: int) -> tuple[int, int, IntArray]:
    """Return the most pieces of words in a window, the distance of windows, and the number of windows of each row."""
    size = max(int(row_lengths.max(initial=0)), 1) if longest is None else longest - n_special
    step = max(1, size - overlap)
    return size, step, 1 + np.maximum(0, -(-(row_lengths - size) // step))


def _after(marks: BoolArray, rows: Rows) -> BoolArray:
    """Return whether a word (N,) comes after a marked one in its row."""
    before: IntArray = np.cumsum(marks) - marks  # number of marks before each word, counted over all rows
    starts = np.concatenate((before, [int(marks.sum())]))[rows.host_offsets[:-1]]
    return before > np.repeat(starts, rows.host_lengths)
