"""Blocks of rows of similar lengths against all possible cuts."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from runner.ragged import shapes


def cost(cut: list[list[int]], overhead: int) -> int:
    return sum(len(block) * max(block) ** 2 + overhead for block in cut)


@pytest.mark.parametrize("overhead", [0, 1, 5, 20, 1000])
@pytest.mark.parametrize("lengths", [[], [3], [0, 0, 2], [1, 2, 2, 3, 7], [2, 2, 2], [1, 1, 4, 5, 5, 9, 9]])
def test_blocks_are_the_cheapest_of_all_ways_to_cut(
    lengths: list[int], overhead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "BLOCK_PAIRS", overhead)
    ends = shapes.block_ends(np.array(lengths, dtype=np.int64)).tolist()
    assert ends[-1] == len(lengths)
    places = range(1, len(lengths))
    cuts = (cut for n in range(len(lengths)) for cut in combinations(places, n))
    ways = [[lengths[a:b] for a, b in pairwise((0, *cut, len(lengths)))] for cut in cuts]
    mine = [lengths[a:b] for a, b in pairwise((0, *ends))]
    assert not lengths or cost(mine, overhead) == min(cost(way, overhead) for way in ways)
