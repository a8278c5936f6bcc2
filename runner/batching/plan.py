"""What a plan is, and the pieces that plans are made of. A plan says which rows form one update of the optimiser.

Shapes: B rows of the split. No torch here, and no Python per row: only per update.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from runner.common.arrays import IntArray


@runtime_checkable  # so that a config value which is no plan is refused by name
class Plan(Protocol):
    """Pure: the same lengths and the same random state give the same updates."""

    @property
    def batch_size(self) -> int | None:
        """Rows of an update, at most; None where something else limits it."""
        ...

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of each update, for rows of `lengths` (B,). Each row exactly once; no update is empty."""
        ...


def stable_order(keys: IntArray) -> IntArray:
    """(B,) row numbers by rising key (at least 0), ties in their own order."""
    if keys.max(initial=0) < 2**16:
        keys = keys.astype(np.uint16)  # numpy sorts 16-bit keys by radix, in linear time
    return np.argsort(keys, kind="stable")


def shuffle_within(groups: IntArray, rng: np.random.Generator) -> IntArray:
    """(B,) row numbers by rising group, in random order within each."""
    order = rng.permutation(len(groups))
    return order[stable_order(groups[order])]


def shuffle_updates(updates: list[IntArray], rng: np.random.Generator) -> list[IntArray]:
    return [updates[place] for place in rng.permutation(len(updates))]


def group_starts(groups: IntArray) -> IntArray:
    """(G,) where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1]))) if len(groups) else groups


def cut_at(order: IntArray, starts: IntArray) -> list[IntArray]:
    """`order` cut before each of `starts`, of which the first is 0 (nothing to cut: no starts)."""
    return [order[begin:end] for begin, end in pairwise([*starts.tolist(), len(order)])]


def cut(order: IntArray, batch_size: int) -> list[IntArray]:
    """`order` cut into runs of `batch_size`; the last may be shorter."""
    return cut_at(order, np.arange(0, len(order), batch_size))


def cut_groups(order: IntArray, groups: IntArray, batch_size: int) -> list[IntArray]:
    """`order` cut into runs of at most `batch_size` within each run of equal `groups` (one a place of `order`)."""
    starts = group_starts(groups)
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return cut_at(order, np.flatnonzero(place % batch_size == 0))


def by_length(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Rows from short to long (ties in the file's order), for evaluation: little padding, nothing random."""
    return cut(stable_order(lengths), batch_size)


def longest_of(lengths: IntArray, updates: list[IntArray]) -> IntArray:
    """(U,) the length of the longest row of each of U updates, at least one, for rows of `lengths` (B,)."""
    sizes = np.array([len(update) for update in updates])
    longest: IntArray = np.maximum.reduceat(lengths[np.concatenate(updates)], np.cumsum(sizes) - sizes)
    return longest


def fill_rate(updates: list[IntArray], batch_size: int) -> float:
    """How full the updates are, 0 to 1: rows / (updates x batch_size). 1 where there is no update."""
    rows = sum(len(update) for update in updates)
    return rows / (len(updates) * batch_size) if updates else 1.0


def digest(updates: Iterable[IntArray], before: str = "") -> str:
    """Which rows stood together, update by update, as a chain of SHA-256: equal digests, equal updates.

    The order of rows within an update does not count. `before` is the digest of all updates until here, so that a
    chain goes over epochs and on after a resume: `digest(a + b) == digest(b, before=digest(a))`.
    """
    for update in updates:
        rows = np.sort(update).astype("<i8").tobytes()
        before = hashlib.sha256(before.encode() + rows).hexdigest()
    return before
