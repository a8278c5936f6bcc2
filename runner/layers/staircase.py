"""Rows of different lengths as a few rectangles: sorted from long to short, and cut across time.

A kernel for rectangles then runs one after another, each over the rows that have not ended at its begin, and hands its
state to the next. Few cuts leave padding, many cost calls: `cuts` weighs them.

Shapes: B rows, R of at least one token, N tokens in all, M places of all rectangles, N of which hold tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows


class Block(NamedTuple):
    """One rectangle."""

    steps: int
    rows: int


class Staircase:
    """Where each token lies in rectangles that stand one behind another, each of (steps, rows) places.

    Args:
        rows: at least one of which has a token.
        call: how many places a further rectangle is worth; None: a cut wherever a row ends, so that there is no padding
            and every row ends at the end of a rectangle.

    Attributes:
        blocks: the rectangles, first to last; the rows of each are the longest of the one before.
        sizes: places of each.
        row_order: (R,) the rows, longest first.
    """

    def __init__(self, rows: Rows, call: float | None) -> None:
        self.rows = rows
        lengths = rows.host_lengths
        order = np.argsort(-lengths, kind="stable")
        ends, running = _levels(lengths)
        begins = cuts(ends, running, call)
        stops = [*begins[1:], len(ends) - 1]
        self.blocks = [
            Block(ends[stop] - ends[begin], running[begin]) for begin, stop in zip(begins, stops, strict=True)
        ]
        self.sizes = [block.steps * block.rows for block in self.blocks]
        self.row_order = rows._send(order[: running[0]])
        self._rank = np.empty_like(order)
        self._rank[order] = np.arange(len(order))
        self._lengths = lengths[order[: running[0]]]  # longest first

    @classmethod
    def of(cls, rows: Rows, call: float | None) -> Staircase:
        """The same object for all layers that ask for the same."""
        key = ("staircase", call)
        if key not in rows.kept:
            rows.kept[key] = cls(rows, call)
        found: Staircase = rows.kept[key]
        return found

    @cached_property
    def places(self) -> Tensor:
        """(N,) the place of each packed token."""
        return self.rows._send(self._places_of(self.rows.host_position))

    @cached_property
    def reversed_places(self) -> Tensor:
        """(N,) the place of each packed token where every row is read from its own end."""
        lengths = np.repeat(self.rows.host_lengths, self.rows.host_lengths)
        return self.rows._send(self._places_of(lengths - 1 - self.rows.host_position))

    @cached_property
    def last_places(self) -> Tensor:
        """(R,) the place of each row's last token, longest row first."""
        return self.rows._send(self._first[self._lengths - 1] + np.arange(len(self._lengths)))

    @cached_property
    def running(self) -> list[int]:
        """How many rows each step has."""
        return [block.rows for block in self.blocks for _ in range(block.steps)]

    def _places_of(self, step: IntArray) -> IntArray:
        places: IntArray = self._first[step] + np.repeat(self._rank, self.rows.host_lengths)
        return places

    @cached_property
    def _first(self) -> IntArray:
        """The place of each step's longest row."""
        steps, width = np.array(self.blocks).T
        behind = np.cumsum(self.sizes) - self.sizes  # places before each rectangle
        first: IntArray = np.repeat(behind, steps) + _counted(steps) * np.repeat(width, steps)
        return first


def cuts(ends: Sequence[int], running: Sequence[int], call: float | None) -> list[int]:
    """At which of the `ends` rectangles begin, so that all their places, and `call` places for each, are fewest.

    Exact, by dynamic programming: with r_i rows running behind end e_i,

        cost(j) = call + min over i < j of cost(i) + r_i (e_j - e_i)

    Args:
        ends: 0, and the lengths that rows have, rising.
        running: how many rows are longer than each of them.
        call: None: they begin at all of them.
    """
    if call is None:
        return list(range(len(ends) - 1))
    cost, before = [0.0], [0]
    for end in ends[1:]:
        each = [so_far + rows * (end - begin) for so_far, rows, begin in zip(cost, running, ends, strict=False)]
        least = min(each)
        cost.append(least + call)
        before.append(each.index(least))
    found = [before[-1]]
    while found[-1]:
        found.append(before[found[-1]])
    return found[::-1]


def _levels(lengths: IntArray) -> tuple[list[int], list[int]]:
    """What `cuts` takes: 0 and the distinct lengths, and how many rows are longer than each."""
    distinct, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return [0, *distinct.tolist()], [int(counts.sum()), *(counts.sum() - np.cumsum(counts)).tolist()]


def _counted(counts: IntArray) -> IntArray:
    """0, 1, ... up to each of the counts, one after another."""
    counted: IntArray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return counted


def moved(values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
    """`result[target] = values[source]`, zeros elsewhere: (P, *) -> (size, *).

    Args:
        source: (N,) distinct places; None: all of them in order.
        target: (N,) distinct places; None: the first N, and `size` is N.

    Its gradient is the same with both exchanged; that of `index_select` is a scattered sum, slower by far.
    """
    result: Tensor = _Moved.apply(values, source, target, size)  # type: ignore[no-untyped-call]
    return result


def packed_tokens(x: Ragged) -> Tensor:
    """(N, *) the values of real tokens, as `Ragged.tokens`, with a gradient that is moved rather than summed."""
    return x.values if x.layout == "packed" else moved(x.values.flatten(0, 1), x.rows.flat, None, x.rows.n_tokens)


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
        ctx.save_for_backward(source, target)
        ctx.size = len(values)
        return _move(values, source, target, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        source, target = ctx.saved_tensors
        return _move(grads[0], target, source, ctx.size), None, None, None


def _move(values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
    if source is not None:
        values = values.index_select(0, source)
    if target is None:
        return values
    return values.new_zeros(size, *values.shape[1:]).index_copy_(0, target, values)
