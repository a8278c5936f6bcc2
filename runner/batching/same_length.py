"""Updates of rows of equal length: no padding by construction, but some updates are not full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut_groups, shuffle_updates, shuffle_within
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import Updates


@dataclass(frozen=True, kw_only=True)
class SameLength:
    """A plan that shuffles rows within each length, and then the updates of all lengths.

    The last update of every length may be small; `plan.fill_rate` measures how full updates are on average.
    """

    batch_size: PositiveInt  # maximum number of rows of an update

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        order = shuffle_within(lengths, rng)
        return shuffle_updates(cut_groups(order, lengths[order], self.batch_size), rng)
