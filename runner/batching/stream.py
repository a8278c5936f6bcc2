"""One long text as parallel streams, cut into windows: language models whose state is carried (unit `stream`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runner.batch import Batch
from runner.batching.padding import no_padding, padding_by_cause
from runner.batching.plan import IntArray, cut
from runner.errors import HydromelError
from runner.ragged import Ragged
from runner.rows import spans
from runner.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Updates and batches of one text (`runner.batching.loader.Batching` has the same methods for independent rows).

    The split is a `Batch` of one row, the whole text of N tokens, with one answer a token. Training reads `batch_size`
    streams of N // batch_size tokens side by side, a window of each an update, in the text's order.

    Args:
        name: what reports call this strategy.
        batch_size: streams side by side, which are the rows of an update.
        window: tokens of each stream in an update (the length of backpropagation through time).
        evaluation_streams: streams side by side in evaluation. Each begins without context, so this number is part
            of what is measured, and the batch size of evaluation is not used.
        layout: `packed` or `padded`. Windows of an update are equally long, so training has no padding in either.
    """

    name: str
    batch_size: PositiveInt
    window: PositiveInt
    evaluation_streams: PositiveInt
    layout: Literal["packed", "padded"]

    def arrange(self, split: Batch) -> Batch:
        """The windows of training, as rows: row w * batch_size + s is window w of stream s.

        Raises:
            HydromelError: a split that is not one row, or has fewer tokens than there are streams.
        """
        if split.real_tokens < self.batch_size:
            raise HydromelError(
                f"batching.batch_size={self.batch_size}: a text of {split.real_tokens} tokens gives fewer streams"
            )
        per_stream = split.real_tokens // self.batch_size
        return self._windows(split, np.full(self.batch_size, per_stream), per_stream)

    def dropped_tokens(self, split: Batch) -> int:
        """Tokens at the end of the text that `arrange` leaves out, so that all streams are equally long."""
        return split.real_tokens % self.batch_size

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> list[IntArray]:
        """Rows of each update, for the `lengths` of what `arrange` gave: always in order, whatever seed and epoch."""
        return cut(np.arange(len(lengths)), self.batch_size)

    def micro_batches(self, split: Batch, chosen: IntArray) -> Iterator[Batch]:
        """One update (a state is carried for each stream, so none is cut); it continues the one before it."""
        yield self._lay_out(split, chosen, continues=True)

    def evaluation(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Every token of a split (one row, not arranged) once, in `evaluation_streams`, window after window.

        Streams are as long as N / evaluation_streams rounded up; where the text ends before a window, its row is empty.
        """
        per_stream = -(-split.real_tokens // self.evaluation_streams)
        starts = np.minimum(np.arange(self.evaluation_streams + 1) * per_stream, split.real_tokens)
        arranged = self._windows(split, np.diff(starts), per_stream)
        for rows in cut(np.arange(arranged.rows.n_rows), self.evaluation_streams):
            yield self._lay_out(arranged, rows, continues=True)

    def padding(self, lengths: IntArray, is_last: bool) -> dict[str, int]:
        """Padded tokens of one batch of windows of `lengths` (B,), by cause: none in training."""
        if self.layout == "packed" or not len(lengths):
            return no_padding()
        return padding_by_cause(lengths, np.array([len(lengths)]), np.array([is_last]), width_multiple=1)

    def padding_of_epoch(self, lengths: IntArray, updates: list[IntArray]) -> dict[str, int]:
        """Padded tokens of whole updates, by cause: none, since windows of an update are equally long."""
        return no_padding()

    def is_short(self, update: IntArray) -> bool:
        """Whether an update has fewer rows than `batch_size`: never, since each has a window of every stream."""
        return False

    def _windows(self, split: Batch, stream_lengths: IntArray, stride: int) -> Batch:
        """Rows as `arrange` says, by one gather a column. Stream s: `stream_lengths[s]` tokens from s * stride on."""
        if split.rows.n_rows != 1 or not isinstance(split.target, Ragged):
            raise HydromelError(
                f"batching={self.name}: streams are cut from one text with an answer a token (task=lm, unit=stream); "
                f"got {split.rows.n_rows} rows"
            )
        first = np.arange(0, stride, self.window)[:, None]
        lengths = np.clip(stream_lengths - first, 0, self.window).ravel()
        starts = (np.arange(len(stream_lengths)) * stride + first).ravel()
        rows, tokens = spans(starts, lengths, split.rows.device)
        features = {name: feature.select_by(rows, tokens) for name, feature in split.features.items()}
        return Batch(features, split.target.select_by(rows, tokens), np.arange(rows.n_rows))

    def _lay_out(self, split: Batch, rows: IntArray, continues: bool) -> Batch:
        batch = split.select(rows, continues=continues)
        return batch.pad() if self.layout == "padded" else batch
