"""A plan for a batching strategy: short rows first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut, shuffled_rows, stable_order
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import Updates


@dataclass(frozen=True, kw_only=True)
class ShortFirst:
    """Updates in order of length, from short rows to long ones; rows of equal length in random order.

    Args:
        batch_size: rows per update.
    """

    batch_size: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        """Return the row numbers of each update; each row occurs exactly once."""
        order = shuffled_rows(len(lengths), rng)
        return cut(order[stable_order(lengths[order])], self.batch_size)
