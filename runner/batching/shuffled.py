"""Rows in random order: the plan of `size1`, `padmask` and `packed`, which so make the same updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """All rows shuffled and cut into updates; only the last may be smaller.

    Args:
        batch_size: rows of an update.
    """

    batch_size: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        return cut(rng.permutation(len(lengths)), self.batch_size)
