"""Rows of close lengths in blocks, for work that grows with the square of a rectangle's width."""

from __future__ import annotations

import numpy as np

from runner.common.arrays import IntArray

BLOCK_PAIRS = 2**14  # of a query and a key that take about as long as one more block does (docs/notes/performance.md)


def block_ends(lengths: IntArray) -> IntArray:
    """Where blocks of rows of rising `lengths` (B,) end, so that the sum of rows * longest^2 + BLOCK_PAIRS is least.

    Exact, by dynamic programming over the distinct lengths: with those up to v_j, which C_j rows have,

        A(j) = min over i < j of A(i) + v_j^2 (C_j - C_i) + BLOCK_PAIRS
    """
    n_rows = len(lengths)
    if not n_rows or n_rows * int(lengths[-1]) ** 2 - int((lengths**2).sum()) <= BLOCK_PAIRS:
        return np.array([n_rows])  # not even a block for each row would gain anything
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate(([0], np.cumsum(counts)))
    least = np.zeros(len(ends), dtype=np.int64)
    before = np.zeros(len(ends), dtype=np.int64)
    for j, length in enumerate(distinct, start=1):
        costs = least[:j] + length**2 * (ends[j] - ends[:j])
        before[j] = costs.argmin()
        least[j] = costs[before[j]] + BLOCK_PAIRS
    found = [len(distinct)]
    while before[found[-1]]:
        found.append(int(before[found[-1]]))
    best: IntArray = ends[np.array(found[::-1])]
    return best
