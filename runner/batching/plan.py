"""The `Plan` protocol and the building blocks of plans. A plan decides which rows form one update of the optimiser.

Shapes: B rows of the split. Plans need no torch, and their Python loops run over updates, never over rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from runner.common.arrays import BoolArray, IntArray
from runner.common.records import PADDING_CAUSES


@runtime_checkable  # so that a config value that is not a plan is rejected by name
class Plan(Protocol):
    """A pure function: the same lengths and random state give the same updates."""

    @property
    def batch_size(self) -> int | None:
        """The maximum number of rows of an update; None if something else limits updates."""

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        """Return the row numbers of each update for rows of `lengths` (B,): each row exactly once, no empty update."""


def stable_order(keys: IntArray) -> IntArray:
    """Return row numbers sorted by key (at least 0), (B,); ties keep their order."""
    if keys.max(initial=0) < 2**16:
        keys = keys.astype(np.uint16)  # numpy sorts 16-bit keys by radix, in linear time
    return np.argsort(keys, kind="stable")


def shuffle_within(groups: IntArray, rng: np.random.Generator) -> IntArray:
    """Return row numbers sorted by group, (B,), in random order within each group."""
    order = rng.permutation(len(groups))
    return order[stable_order(groups[order])]


def shuffle_updates(updates: list[IntArray], rng: np.random.Generator) -> list[IntArray]:
    """Return the updates in random order."""
    return [updates[place] for place in rng.permutation(len(updates))]


def group_starts(groups: IntArray) -> IntArray:
    """Return the index at which each run of equal values starts, (G,)."""
    return np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1]))) if len(groups) else groups


def cut_at(order: IntArray, starts: IntArray) -> list[IntArray]:
    """Cut `order` before each of `starts`, of which the first is 0 (no starts if `order` is empty)."""
    return [order[start:end] for start, end in pairwise([*starts.tolist(), len(order)])]


def cut(order: IntArray, batch_size: int) -> list[IntArray]:
    """Cut `order` into pieces of `batch_size`; the last may be shorter."""
    return cut_at(order, np.arange(0, len(order), batch_size))


def cut_groups(order: IntArray, groups: IntArray, batch_size: int) -> list[IntArray]:
    """Cut `order` into pieces of at most `batch_size` within each run of equal `groups` (of the same shape)."""
    starts = group_starts(groups)
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return cut_at(order, np.flatnonzero(place % batch_size == 0))


def batches_by_length(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Return batches of rows from short to long (ties in file order), for evaluation: little padding, no randomness."""
    return cut(stable_order(lengths), batch_size)


def longest_of(lengths: IntArray, updates: list[IntArray]) -> IntArray:
    """Return the longest row of each of U >= 1 updates in tokens, (U,), for rows of `lengths` (B,)."""
    sizes = np.array([len(update) for update in updates])
    return np.maximum.reduceat(lengths[np.concatenate(updates)], np.cumsum(sizes) - sizes)


def fill_rate(updates: list[IntArray], batch_size: int) -> float:
    """Return how full updates are, rows / (updates x batch_size), 0 to 1; 1 if there are no updates."""
    rows = sum(len(update) for update in updates)
    return rows / (len(updates) * batch_size) if updates else 1.0


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
