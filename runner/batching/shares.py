"""The division of an update's rows over the ranks that compute it together."""

from __future__ import annotations

import heapq

import numpy as np

from runner.batching.plan import stable_order
from runner.common.arrays import IntArray


def shares_by_tokens(tokens: IntArray, world: int) -> list[IntArray]:
    """Return the indices that each of `world` ranks computes, ascending, so that all have about as many tokens.

    The longest row goes to the rank with the fewest tokens so far, then the next (Graham 1969: at most 4/3 of the
    optimum). A pure function, so that every rank knows the shares of all. With fewer rows than ranks some have none.

    Args:
        tokens: (R,) tokens of each row of the update.
    """
    loads = [(0, 0, rank) for rank in range(world)]  # a heap of (tokens, rows, rank), ordered by all three
    chosen: list[list[int]] = [[] for _ in range(world)]
    for index in stable_order(tokens)[::-1].tolist():
        n_tokens, n_rows, rank = loads[0]
        chosen[rank].append(index)
        heapq.heapreplace(loads, (n_tokens + int(tokens[index]), n_rows + 1, rank))
    return [np.array(sorted(indices), dtype=np.int64) for indices in chosen]
