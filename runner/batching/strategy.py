"""The strategy of independent rows: a plan (rows of an update), a micro-batch size (how it is cut) and a layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from runner.batching.padding import no_padding, padding_by_cause, round_up
from runner.batching.plan import Plan, batches_by_length, cut, longest_of
from runner.batching.token_budget import TokenBudget
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.interfaces import PADDED, Layout
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes, concatenate, shapes_of, with_blocks


@dataclass(frozen=True, kw_only=True)
class Batching:
    """A `BatchingStrategy` of independent rows.

    Args:
        name: name of the strategy in reports.
        batch_size: examples per update; None if the plan has another limit.
        plan: decides which rows form one update; its batch size is this one.
        micro_batch: rows that go through the model at once; their gradients are summed (None: the whole update).
        layout: `packed`; `timestep`: packed, and recurrent layers step through time; `padded`, with a mask; or
            `unmasked`: padded, with padding treated as text (known wrong).
        width_multiple: padded widths are rounded up to a multiple of it.

    Raises:
        ValueError: if the plan has another batch size.
    """

    carries_state: ClassVar[bool] = False
    name: str
    batch_size: PositiveInt | None
    plan: Plan
    micro_batch: PositiveInt | None
    layout: Layout
    width_multiple: PositiveInt

    def __post_init__(self) -> None:
        if self.plan.batch_size != self.batch_size:
            raise ValueError(
                f"plan.batch_size={self.plan.batch_size} but batch_size={self.batch_size}; set batch_size only"
            )

    @property
    def pads(self) -> bool:
        """True if batches hold padding."""
        return self.layout in PADDED

    def arrange(self, split: Batch) -> Batch:
        """Return the rows of training: for this strategy, those of the split."""
        return split

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> list[IntArray]:
        """Return the row numbers of each update of an epoch, which depend on `seed` and `epoch` only."""
        return self.plan(lengths, np.random.default_rng([seed, epoch]))

    def longest(self, lengths: IntArray, updates: list[IntArray]) -> IntArray:
        """Return the longest row of each update in tokens, (U,), for a split of `lengths` (B,)."""
        return longest_of(lengths, updates)

    def learning_rate_factor(self, update: IntArray) -> float:
        """Return the factor of the learning rate at an update: for this strategy, 1."""
        return 1.0

    def micro_batches(self, train: Batch, update: IntArray) -> Iterator[Batch]:
        """Yield the micro-batches of one update, laid out for the model."""
        for rows in self._cut(update):
            yield self._lay_out(train, rows)

    def evaluation_batches(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Yield every row of the split once, from short to long, `batch_size` at a time, in this layout."""
        for rows in batches_by_length(split.rows.host_lengths, batch_size):
            yield self._lay_out(split, rows)

    def padding(self, lengths: IntArray, updates: list[IntArray]) -> dict[str, int]:
        """Return the number of padded tokens of some updates, by cause, for a split of `lengths` (B,)."""
        if not self.pads or not updates:
            return no_padding()
        pieces = [(len(rows), self._is_short(update)) for update in updates for rows in self._cut(update)]
        sizes, is_last = (np.array(column) for column in zip(*pieces, strict=True))
        return padding_by_cause(lengths[np.concatenate(updates)], sizes, is_last, self.width_multiple)

    def shapes(self, lengths: IntArray, updates: list[IntArray], blocks: bool = False) -> Shapes:
        """Return the shapes of the micro-batches of some updates; `blocks` if packed rows run in blocks."""
        shapes = shapes_of(updates, lengths, self.micro_batch, self._multiple)
        return with_blocks(shapes, lengths[np.concatenate(updates)], "all") if blocks and not self.pads else shapes

    def evaluation_shapes(self, splits: Sequence[Batch], batch_size: int, blocks: bool = False) -> Shapes:
        """Return the shapes of all evaluation batches; `blocks` if packed rows run in blocks, one after another."""
        shapes = []
        for lengths in (split.rows.host_lengths for split in splits):
            batches = batches_by_length(lengths, batch_size)
            whole = shapes_of(batches, lengths, None, self._multiple)
            in_order = lengths[np.concatenate(batches)]
            shapes.append(with_blocks(whole, in_order, "largest") if blocks and not self.pads else whole)
        return concatenate(shapes)

    def with_batch_size(self, batch_size: int) -> Self:
        """Return the same strategy, and its plan, with `batch_size` examples per update."""
        plan = replace(self.plan, batch_size=batch_size)  # type: ignore[type-var]  # plans are dataclasses
        return replace(self, batch_size=batch_size, plan=plan)

    def with_micro_batch(self, micro_batch: int | None) -> Self:
        """Return the same strategy with `micro_batch` rows at once."""
        return replace(self, micro_batch=micro_batch)

    @property
    def _multiple(self) -> int:
        """The multiple that widths are rounded up to: 1 if the layout has no padding."""
        return self.width_multiple if self.pads else 1

    def _is_short(self, update: IntArray) -> bool:
        """Return whether rows ran out before the update had `batch_size`; always false with a token budget."""
        if self.batch_size is None or isinstance(self.plan, TokenBudget):
            return False
        return len(update) < self.batch_size

    def _cut(self, update: IntArray) -> list[IntArray]:
        """Cut an update into micro-batches."""
        return [update] if self.micro_batch is None else cut(update, self.micro_batch)

    def _lay_out(self, split: Batch, rows: IntArray) -> Batch:
        """Return the chosen rows in this strategy's layout."""
        if not self.pads:
            packed = split.select(rows)
            return packed.step_by_step() if self.layout == "timestep" else packed
        longest = int(split.rows.host_lengths[rows].max())
        batch = split.select(rows, width=round_up(max(1, longest), self.width_multiple))
        return batch.pad() if self.layout == "padded" else batch.unmasked()
