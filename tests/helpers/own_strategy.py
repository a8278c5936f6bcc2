"""A batching strategy that implements the protocol by itself, without a class of the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from runner.common.arrays import IntArray
from runner.common.records import PADDING_CAUSES
from runner.common.types import PositiveInt
from runner.interfaces import BatchingStrategy
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes, shapes_of, with_blocks


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Shuffled rows, packed: the same updates as `packed`."""

    layout: ClassVar[Literal["packed"]] = "packed"
    carries_state: ClassVar[bool] = False
    name: str
    batch_size: PositiveInt
    micro_batch: PositiveInt | None = None

    def arrange(self, split: Batch) -> Batch:
        return split

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> list[IntArray]:
        return self._cut(np.random.default_rng([seed, epoch]).permutation(len(lengths)), self.batch_size)

    def learning_rate_factor(self, update: IntArray) -> float:
        return 1.0

    def micro_batches(self, train: Batch, update: IntArray) -> Iterator[Batch]:
        yield from (train.select(rows) for rows in self._cut(update, self.micro_batch or len(update)))

    def evaluation_batches(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        yield from (split.select(rows) for rows in self._cut(np.arange(split.rows.n_rows), batch_size))

    def longest(self, lengths: IntArray, updates: list[IntArray]) -> IntArray:
        return np.array([lengths[update].max() for update in updates])

    def padding(self, lengths: IntArray, updates: list[IntArray]) -> dict[str, int]:
        return dict.fromkeys(PADDING_CAUSES, 0)

    def shapes(self, lengths: IntArray, updates: list[IntArray], blocks: bool = False) -> Shapes:
        shapes = shapes_of(updates, lengths, self.micro_batch)
        return with_blocks(shapes, lengths[np.concatenate(updates)], "all") if blocks else shapes

    def evaluation_shapes(self, splits: Sequence[Batch], batch_size: int, blocks: bool = False) -> Shapes:
        lengths = np.concatenate([split.rows.host_lengths for split in splits])
        return shapes_of(self._cut(np.arange(len(lengths)), batch_size), lengths)

    def with_batch_size(self, batch_size: int) -> Self:
        return replace(self, batch_size=batch_size)

    def with_micro_batch(self, micro_batch: int | None) -> Self:
        return replace(self, micro_batch=micro_batch)

    def _cut(self, rows: IntArray, size: int) -> list[IntArray]:
        return [rows[start : start + size] for start in range(0, len(rows), size)]


def checked(strategy: Plain) -> BatchingStrategy:
    """Return the strategy, which a type checker accepts only if the protocol is complete."""
    return strategy
