"""Rows of equal length only: no padding by construction, at the price of updates that are not full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut_groups, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class SameLength:
    """Rows shuffled within each length, then the updates of all lengths shuffled.

    The last update of every length may be small: `plan.fill_rate` says how full updates are on average.

    Args:
        batch_size: rows of an update, at most.
    """

    batch_size: PositiveInt

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> list[IntArray]:
        order = shuffle_within(lengths, rng)
        return shuffle_updates(cut_groups(order, lengths[order], self.batch_size), rng)
