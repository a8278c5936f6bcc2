"""The strategy of independent rows: a plan (rows of an update), a micro-batch size (how it is cut) and a layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from runner.batching.plan import Plan, batches_by_length, cut, longest_of, no_padding, padding_by_cause
from runner.batching.token_budget import TokenBudget
from runner.common.arrays import IntArray
from runner.common.types import Name, PositiveInt
from runner.interfaces import PADDED, Layout
from runner.ragged.batch import Batch
from runner.ragged.shapes import (
    Shapes,
    Together,
    concatenate,
    longest_in,
    micro_batch_sizes,
    places_in,
    shapes_of,
    texts_in,
    with_blocks,
)
from runner.ragged.updates import Updates


@dataclass(frozen=True, kw_only=True)
class Batching:
    """A `BatchingStrategy` of independent rows, which are those of the split. The protocol documents its methods.

    Args:
        name: name of the strategy in reports.
        batch_size: examples per update, with `TokenBudget` on average; None if the plan has another limit.
        plan: decides which rows form one update; its batch size must equal `batch_size`.
        micro_batch: rows that go through the model at once; their gradients are summed (None: the whole update).
        layout: `packed`; `timestep`: packed, and recurrent layers step through time; `padded`, with a mask; or
            `unmasked`: padded, with padding treated as text (known wrong).
        width_multiple: padded widths are rounded up to a multiple of it.
    """

    carries_state: ClassVar[bool] = False
    name: Name
    batch_size: PositiveInt | None
    plan: Plan
    micro_batch: PositiveInt | None
    layout: Layout
    width_multiple: PositiveInt

    def __post_init__(self) -> None:
        if isinstance(self.plan, TokenBudget) and self.plan.max_tokens is not None:
            object.__setattr__(self, "batch_size", None)
        elif self.plan.batch_size != self.batch_size:
            raise ValueError(
                f"plan.batch_size={self.plan.batch_size} but batch_size={self.batch_size}; set batch_size only"
            )

    @property
    def pads(self) -> bool:
        """True if batches hold padding."""
        return self.layout in PADDED

    def arrange(self, split: Batch) -> Batch:
        return split

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> Updates:
        return Updates.of(self.plan(places_in(lengths), np.random.default_rng([seed, epoch])))

    def longest(self, lengths: IntArray, updates: Sequence[IntArray]) -> IntArray:
        return longest_of(longest_in(lengths), updates)

    def learning_rate_factor(self, update: IntArray) -> float:
        return 1.0

    def micro_batches(self, train: Batch, update: IntArray) -> Iterator[Batch]:
        for rows in self._cut(update) if len(update) else ():
            yield self._lay_out(train, rows)

    def evaluation_batches(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Yield every row of the split once, from short to long, `batch_size` at a time, in this layout."""
        for rows in batches_by_length(places_in(split.cost_lengths), batch_size):
            yield self._lay_out(split, rows)

    def padding(self, lengths: IntArray, updates: Sequence[IntArray]) -> dict[str, int]:
        if not self.pads or not updates:
            return no_padding()
        # with a token budget an update is full whatever its number of rows
        full = 0 if self.batch_size is None or isinstance(self.plan, TokenBudget) else self.batch_size
        planned = Updates.of(updates)
        sizes, n_pieces = micro_batch_sizes(planned.sizes, self.micro_batch)
        is_last = np.repeat(planned.sizes < full, n_pieces)
        ordered = lengths[planned.rows]
        texts = np.add.reduceat(texts_in(ordered), np.cumsum(sizes) - sizes)
        return padding_by_cause(ordered[ordered >= 0], texts, is_last, self.width_multiple)

    def shapes(self, lengths: IntArray, updates: Sequence[IntArray], blocks: bool = False) -> Shapes:
        return self._shapes(lengths, updates, self.micro_batch, "all" if blocks else None)

    def evaluation_shapes(self, splits: Sequence[Batch], batch_size: int, blocks: bool = False) -> Shapes:
        """Return the shapes of all evaluation batches."""
        padded = any(split.pieces is not None and split.pieces.always_padded for split in splits)
        together: Together | None = "largest" if blocks and not padded else None
        all_lengths = [split.cost_lengths for split in splits]
        batches = [batches_by_length(places_in(lengths), batch_size) for lengths in all_lengths]
        return concatenate([self._shapes(*split, None, together) for split in zip(all_lengths, batches, strict=True)])

    def with_batch_size(self, batch_size: int) -> Self:
        """Return the same strategy, and its plan, with `batch_size` examples per update."""
        plan = replace(self.plan, batch_size=batch_size)  # type: ignore[type-var]  # plans are dataclasses
        return replace(self, batch_size=batch_size, plan=plan)

    def with_micro_batch(self, micro_batch: int | None) -> Self:
        return replace(self, micro_batch=micro_batch)

    def _cut(self, update: IntArray) -> Sequence[IntArray]:
        return [update] if self.micro_batch is None else cut(update, self.micro_batch)

    def _shapes(
        self, lengths: IntArray, batches: Sequence[IntArray], micro_batch: int | None, blocks: Together | None
    ) -> Shapes:
        """Return the shapes of batches, cut to `micro_batch` rows; packed rows may run in `blocks` (`with_blocks`)."""
        if self.pads:
            return shapes_of(batches, lengths, micro_batch, self.width_multiple)
        whole = shapes_of(batches, lengths, micro_batch)
        return with_blocks(whole, lengths[Updates.of(batches).rows], blocks) if blocks else whole

    def _lay_out(self, split: Batch, rows: IntArray) -> Batch:
        """Return the chosen rows in this strategy's layout."""
        if not self.pads:
            packed = split.select(rows)
            return packed.step_by_step() if self.layout == "timestep" else packed
        longest = max(1, int(split.lengths[rows].max()))
        batch = split.select(rows, width=longest + -longest % self.width_multiple)
        batch.rows.width_multiple = self.width_multiple  # for parts that read the rows as pieces
        return batch.pad() if self.layout == "padded" else batch.unmasked()
