"""A batching strategy: a plan (the rows of an update), a micro-batch size (how it is cut) and a layout in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runner.batching.padding import no_padding, padding_by_cause, round_up
from runner.batching.plan import Plan, by_length, cut, longest_of
from runner.batching.token_budget import TokenBudget
from runner.common.arrays import IntArray
from runner.common.types import PositiveInt
from runner.ragged.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Updates and batches of independent rows (`runner.batching.stream.Stream` has the same methods for one text).

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

    name: str
    batch_size: PositiveInt | None
    plan: Plan
    micro_batch: PositiveInt | None
    layout: Literal["packed", "timestep", "padded", "unmasked"]
    width_multiple: PositiveInt

    def __post_init__(self) -> None:
        if self.plan.batch_size != self.batch_size:
            raise ValueError(
                f"plan.batch_size={self.plan.batch_size} but batch_size={self.batch_size}; set batch_size only"
            )

    @property
    def pads(self) -> bool:
        """True if batches hold padding."""
        return self.layout in ("padded", "unmasked")

    def arrange(self, split: Batch) -> Batch:
        """Return the rows of training: for this strategy, those of the split."""
        return split

    def dropped_tokens(self, split: Batch) -> int:
        """Return the number of tokens that `arrange` leaves out: for this strategy, none."""
        return 0

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> list[IntArray]:
        """Return the row numbers of each update of an epoch, which depend on `seed` and `epoch` only."""
        return self.plan(lengths, np.random.default_rng([seed, epoch]))

    def longest(self, lengths: IntArray, updates: list[IntArray]) -> IntArray:
        """Return the longest row of each update in tokens, (U,), for a split of `lengths` (B,)."""
        return longest_of(lengths, updates)

    def rate(self, update: IntArray) -> float:
        """Return the factor of the learning rate at this update: for this strategy, 1."""
        return 1.0

    def micro_batches(self, split: Batch, chosen: IntArray) -> Iterator[Batch]:
        """Yield the micro-batches of one update, laid out for the model."""
        for rows in self._cut(chosen):
            yield self._lay_out(split, rows)

    def evaluation(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Yield every row of the split once, from short to long, `batch_size` at a time, in this layout."""
        for rows in by_length(split.rows.host_lengths, batch_size):
            yield self._lay_out(split, rows)

    def padding(self, lengths: IntArray, is_last: bool) -> dict[str, int]:
        """Return the number of padded tokens of one micro-batch, by cause.

        Args:
            lengths: (B,) of its rows.
            is_last: whether the micro-batch belongs to an update that `is_short`.
        """
        if not self.pads or not len(lengths):
            return no_padding()
        return padding_by_cause(lengths, np.array([len(lengths)]), np.array([is_last]), self.width_multiple)

    def padding_of_epoch(self, lengths: IntArray, updates: list[IntArray]) -> dict[str, int]:
        """Return the number of padded tokens of whole updates, by cause, for a split of `lengths` (B,)."""
        if not self.pads or not updates:
            return no_padding()
        pieces = [(len(rows), self.is_short(update)) for update in updates for rows in self._cut(update)]
        sizes, is_last = (np.array(column) for column in zip(*pieces, strict=True))
        return padding_by_cause(lengths[np.concatenate(updates)], sizes, is_last, self.width_multiple)

    def is_short(self, update: IntArray) -> bool:
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
