"""A plan for a batching strategy: short rows first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut, stable_order
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class ShortFirst:
    """Updates in order of length, from short rows to long ones; rows of equal length in random order.

    Args:
        batch_size: rows per update.
    """

    batch_size: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        """Return the row numbers of each update; each row occurs exactly once."""
        order = rng.permutation(len(lengths))
        return cut(order[stable_order(lengths[order])], self.batch_size)
