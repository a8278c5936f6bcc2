"""The `Plan` protocol and the building blocks of plans. A plan decides which rows form one update of the optimiser.

Shapes: B rows of the split. Plans need no torch, and their Python loops run over updates, never over rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from runner.common.arrays import BoolArray, IntArray
from runner.common.records import PADDING_CAUSES
from runner.ragged.updates import RowNumbers, Updates, row_numbers

_AT_ONCE = 2**20  # rows that are sorted or moved at once, to bound the memory of a plan


@runtime_checkable  # so that a config value that is not a plan is rejected by name
class Plan(Protocol):
    """A pure function: the same lengths and random state give the same updates."""

    @property
    def batch_size(self) -> int | None:
        """The maximum number of rows of an update; None if something else limits updates."""

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Sequence[IntArray]:
        """Return the row numbers of each update for rows of `lengths` (B,): each row exactly once, no empty update."""


def shuffled_rows(n_rows: int, rng: np.random.Generator) -> RowNumbers:
    """Return the numbers of `n_rows` rows in random order: those of `rng.permutation(n_rows)`."""
    order = row_numbers(n_rows)
    rng.shuffle(order)
    return order


def stable_order(keys: RowNumbers) -> RowNumbers:
    """Return row numbers sorted by key (at least 0), (B,); ties keep their order."""
    if keys.max(initial=0) < 2**16:
        keys = keys.astype(np.uint16)  # numpy sorts 16-bit keys by radix, in linear time
    order = row_numbers(len(keys))
    if len(keys) <= _AT_ONCE or keys.dtype != np.uint16:
        return np.argsort(keys, kind="stable").astype(order.dtype)
    blocks = [keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE)]
    counts = [np.bincount(block, minlength=2**16) for block in blocks]
    free = np.cumsum(sum(counts)) - sum(counts)  # the place of the next row of each key
    for number, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        sorted_rows = np.argsort(block, kind="stable")
        places = np.arange(len(block)) + np.repeat(free - (np.cumsum(count) - count), count)
        order[places] = sorted_rows + number * _AT_ONCE
        free += count
    return order


def shuffle_within(groups: RowNumbers, rng: np.random.Generator) -> RowNumbers:
    """Return row numbers sorted by group, (B,), in random order within each group."""
    order = shuffled_rows(len(groups), rng)
    return order[stable_order(groups[order])]


def shuffle_updates(updates: Updates, rng: np.random.Generator) -> Updates:
    """Return the updates in random order."""
    order = rng.permutation(len(updates))
    starts, sizes = updates.starts[order], updates.sizes[order]
    ends = np.cumsum(sizes)
    rows = np.empty_like(updates.rows)
    parts = np.array_split(np.arange(len(order)), 1 + len(rows) // _AT_ONCE)
    for part in filter(len, parts):
        first, end = ends[part[0]] - sizes[part[0]], ends[part[-1]]
        rows[first:end] = updates.rows[np.arange(first, end) + np.repeat((starts - ends + sizes)[part], sizes[part])]
    return Updates(rows, ends)


def group_starts(groups: RowNumbers) -> IntArray:
    """Return the index at which each run of equal values starts, (G,)."""
    return np.flatnonzero(np.concatenate(([len(groups) > 0], groups[1:] != groups[:-1])))


def cut_at(order: RowNumbers, starts: IntArray) -> Updates:
    """Cut `order` before each of `starts`, of which the first is 0 (no starts if `order` is empty)."""
    return Updates(order, np.append(starts[1:], len(order)) if len(starts) else starts)


def cut(order: RowNumbers, batch_size: int) -> Updates:
    """Cut `order` into pieces of `batch_size`; the last may be shorter."""
    return cut_at(order, np.arange(0, len(order), batch_size))


def cut_groups(order: RowNumbers, groups: RowNumbers, batch_size: int) -> Updates:
    """Cut `order` into pieces of at most `batch_size` within each run of equal `groups` (of the same shape)."""
    firsts = group_starts(groups)
    pieces = -(-np.diff(firsts, append=len(order)) // batch_size)  # of each group
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return cut_at(order, np.repeat(firsts, pieces) + within * batch_size)


def batches_by_length(lengths: IntArray, batch_size: int) -> Updates:
    """Return batches of rows from short to long (ties in file order), for evaluation: little padding, no randomness."""
    return cut(stable_order(lengths), batch_size)


def longest_of(lengths: IntArray, updates: Sequence[IntArray]) -> IntArray:
    """Return the longest row of each of U >= 1 updates in tokens, (U,), for rows of `lengths` (B,)."""
    planned = Updates.of(updates)
    return np.maximum.reduceat(lengths[planned.rows], planned.starts)


def fill_rate(updates: Sequence[IntArray], batch_size: int) -> float:
    """Return how full updates are, rows / (updates x batch_size), 0 to 1; 1 if there are no updates."""
    return len(Updates.of(updates).rows) / (len(updates) * batch_size) if updates else 1.0


def digest(updates: Iterable[IntArray], before: str = "") -> str:
    """Return a SHA-256 chain over the sets of rows of all updates: equal digests mean equal updates.

    The order of rows within an update does not matter. `before` is the digest of all earlier updates, so a chain can
    span epochs and continue after a resume: `digest(a + b) == digest(b, before=digest(a))`.
    """
    for update in updates:
        rows = np.sort(update).astype("<i8").tobytes()
        before = hashlib.sha256(before.encode() + rows).hexdigest()
    return before


def padding_by_cause(lengths: IntArray, sizes: IntArray, is_last: BoolArray, width_multiple: int) -> dict[str, int]:
    """Return the number of padded tokens of some micro-batches, by cause.

    Args:
        lengths: (R,) length of each row, micro-batch after micro-batch.
        sizes: (M,) number of rows of each micro-batch, at least 1.
        is_last: (M,) whether the micro-batch belongs to an update that is smaller than the others.
        width_multiple: padded widths are rounded up to a multiple of it.

    Returns:
        `spread`: padding up to the longest row of the micro-batch (at least 1); `last_batch`: the same in updates with
        `is_last`; `rounding`: padding from there to the multiple.
    """
    if not len(sizes):
        return no_padding()
    starts = np.cumsum(sizes) - sizes
    longest = np.maximum(1, np.maximum.reduceat(lengths, starts))
    spread = longest * sizes - np.add.reduceat(lengths, starts)
    rounding = -longest % width_multiple * sizes
    causes = (spread[~is_last].sum(), spread[is_last].sum(), rounding.sum())
    return {cause: int(tokens) for cause, tokens in zip(PADDING_CAUSES, causes, strict=True)}


def no_padding() -> dict[str, int]:
    """Return zero padded tokens for every cause."""
    return dict.fromkeys(PADDING_CAUSES, 0)
