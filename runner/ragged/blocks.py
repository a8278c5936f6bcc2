"""Blocks of rows of similar lengths, for work that grows with the square of the padded width (attention)."""

from __future__ import annotations

import numpy as np

from runner.common.arrays import IntArray

BLOCK_PAIRS = 2**14  # cost of one more block, in pairs of a query and a key (docs/notes/performance.md)


def block_ends(lengths: IntArray) -> IntArray:
    """Return where blocks of rows with sorted `lengths` (B,) end, for the least sum of rows * longest^2 + BLOCK_PAIRS.

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
    best_ends: IntArray = ends[np.array(path[::-1])]
    return best_ends
