"""Rows of different lengths as a few rectangles: rows are sorted from long to short, and time is cut into blocks.

A kernel that runs only on rectangles, such as torch's fused LSTM on a CPU, runs over one block after another and hands
its state from block to block. Each block holds only the rows that have not ended before it. Few blocks leave much
padding, many blocks cost many kernel calls: `find_cuts` finds the cheapest cuts. For lengths 5, 5, 3, 1 and two blocks
(x token, . padding):

    x x x | x x
    x x x | x x
    x x x |
    x . . |

Shapes: B rows, R of them with at least one token, N tokens in all, M places in all blocks, N of which hold tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.rows import Rows


class Staircase:
    """The place of each token in a sequence of blocks, each a rectangle of (steps, rows) places stored time-major.

    Args:
        rows: at least one of them has a token.
        call: cost of one more block, in places; None: cut wherever a row ends, so that there is no padding and every
            row ends at the end of a block.

    Attributes:
        blocks: (steps, rows) of each block, in time order; the rows are the longest rows of the block before.
        sizes: number of places of each block.
        row_order: (R,) the rows, longest first.
    """

    def __init__(self, rows: Rows, call: float | None) -> None:
        self.rows = rows
        lengths = rows.host_lengths
        order = np.argsort(-lengths, kind="stable")
        # 0 and the distinct lengths, and how many rows are longer than each
        distinct, counts = np.unique(lengths[lengths > 0], return_counts=True)
        ends, running = [0, *distinct.tolist()], (counts.sum() - np.cumsum([0, *counts])).tolist()
        bounds = pairwise([*find_cuts(ends, running, call), len(ends) - 1])
        self.blocks = [(ends[stop] - ends[start], running[start]) for start, stop in bounds]
        self.sizes = [steps * n_rows for steps, n_rows in self.blocks]
        self.row_order = rows.send(order[: running[0]])
        self._rank = np.empty_like(order)
        self._rank[order] = np.arange(len(order))
        self._lengths = lengths[order[: running[0]]]  # longest first

    @classmethod
    def of(cls, rows: Rows, call: float | None) -> Staircase:
        """Return the staircase of `rows`, made once and shared by all layers with the same `call`."""
        return rows.cached(("staircase", call), lambda: cls(rows, call))

    @cached_property
    def places(self) -> Tensor:
        """The place of each packed token, (N,)."""
        return self.rows.send(self._places_of(self.rows.host_position))

    @cached_property
    def reversed_places(self) -> Tensor:
        """The place of each packed token, (N,), if every row is read from its own end."""
        lengths = np.repeat(self.rows.host_lengths, self.rows.host_lengths)
        return self.rows.send(self._places_of(lengths - 1 - self.rows.host_position))

    @cached_property
    def last_places(self) -> Tensor:
        """The place of each row's last token, (R,), longest row first."""
        return self.rows.send(self._first[self._lengths - 1] + np.arange(len(self._lengths)))

    @cached_property
    def running(self) -> list[int]:
        """The number of rows of each step."""
        return [n_rows for steps, n_rows in self.blocks for _ in range(steps)]

    def _places_of(self, step: IntArray) -> IntArray:
        """Return the place of each packed token, (N,), that is read at time `step` (N,)."""
        # blocks lie one after the other, and within a block the rows of a step lie side by side, longest row first
        return self._first[step] + np.repeat(self._rank, self.rows.host_lengths)

    @cached_property
    def _first(self) -> IntArray:
        """The place of each step's longest row."""
        running = np.array(self.running)
        first: IntArray = np.cumsum(running) - running
        return first


def find_cuts(ends: Sequence[int], running: Sequence[int], call: float | None) -> list[int]:
    """Return the indices of `ends` at which blocks start, for the least total cost.

    The cost is the number of places in all blocks plus `call` places for each block. The solution is exact, by dynamic
    programming: with r_i rows longer than e_i,

        cost(j) = call + min over i < j of cost(i) + r_i (e_j - e_i)

    Args:
        ends: 0 and the distinct lengths of rows, rising.
        running: number of rows that are longer than each of `ends`.
        call: cost of one more block, in places; None: blocks start at every one of `ends`.
    """
    if call is None:
        return list(range(len(ends) - 1))
    # cost[j] covers the first ends[j] steps; a block from ends[i] to ends[j] has the r_i rows that run at its start. A
    # cut between two lengths gains nothing over one at a length, so only lengths are candidates.
    cost, best_start = [0.0], [0]
    for end in ends[1:]:
        costs = [so_far + rows * (end - start) for so_far, rows, start in zip(cost, running, ends, strict=False)]
        least = min(costs)
        cost.append(least + call)
        best_start.append(costs.index(least))
    starts = [best_start[-1]]
    while starts[-1]:
        starts.append(best_start[starts[-1]])
    return starts[::-1]
