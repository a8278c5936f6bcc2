"""Rows in random order: the plan of `size1`, `padmask` and `packed`, which therefore make the same updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.batching.plan import cut, shuffled_rows
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.updates import Updates


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """A plan that shuffles all rows and cuts them into updates; only the last update may be smaller."""

    batch_size: PositiveInt  # rows of an update

    def __call__(self, lengths: IntArray, rng: np.random.Generator) -> Updates:
        return cut(shuffled_rows(len(lengths), rng), self.batch_size)
