"""One long text as parallel streams, cut into windows, for language models that carry a state (unit `stream`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

import numpy as np
from torch import Tensor

from runner.batching.plan import cut, longest_of, no_padding
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import Fraction, Name, NonNegativeFloat, PositiveInt
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_spans
from runner.ragged.shapes import Shapes, shapes_of
from runner.ragged.updates import Updates, row_numbers

_MIN_WINDOW = 5  # fewest tokens of a window of varying length, as in the code of Merity et al.


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A `BatchingStrategy` of one text. The protocol documents its methods.

    The split is a `Batch` of one row, the whole text of N tokens, with one target per token. Training reads
    `batch_size` streams of N // batch_size tokens in parallel: each update is one window of every stream, in the text's
    order.

    Args:
        name: name of the strategy in reports.
        batch_size: number of parallel streams, which are the rows of an update.
        window: tokens of each stream in an update (the length of backpropagation through time).
        half_rate: probability that an update's window is only half as long (Merity et al. 2017, section 5).
        spread: standard deviation of window lengths, in tokens. If this or `half_rate` is not 0, window lengths vary,
            so that windows end at other tokens in every epoch, and an update's learning rate is multiplied by its
            window's share of `window`. Every token is still read once per epoch.
        evaluation_streams: number of parallel streams in evaluation. Each stream starts without context, so this number
            affects the result; the batch size of evaluation is not used.
        layout: `packed` or `padded`. Windows of an update have equal lengths, so training has no padding in either.
    """

    carries_state: ClassVar[bool] = True
    micro_batch: ClassVar[None] = None
    name: Name
    batch_size: PositiveInt
    window: PositiveInt
    half_rate: Fraction
    spread: NonNegativeFloat
    evaluation_streams: PositiveInt
    layout: Literal["packed", "padded"]

    def arrange(self, split: Batch) -> Batch:
        """Return the windows of training as rows: row w * batch_size + s is window w of stream s.

        If window lengths vary, rows are single tokens: row s * n + t is token t of stream s, with n tokens per stream.
        A split of several rows, or with fewer tokens than streams, is a HydromelError.
        """
        if split.real_tokens < self.batch_size:
            raise HydromelError(
                f"batching.batch_size={self.batch_size}: a text of {split.real_tokens} tokens is too short; "
                f"use at most {split.real_tokens} streams"
            )
        per_stream = split.real_tokens // self.batch_size
        if not self.varies:
            return self._windows(split, np.full(self.batch_size, per_stream), per_stream)
        total = per_stream * self.batch_size
        return replace(self, window=1)._windows(split, np.array([total]), total)

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> Updates:
        """Return the rows of each update, in the text's order, for the `lengths` of the rows from `arrange`.

        Seed and epoch matter only if window lengths vary. The lengths are drawn from the seed alone, and each epoch
        permutes them, so all epochs have the same number of updates.
        """
        if not self.varies:
            return cut(row_numbers(len(lengths)), self.batch_size)
        per_stream = len(lengths) // self.batch_size
        shuffled = np.random.default_rng([seed, epoch]).permutation(self._window_lengths(per_stream, seed))
        starts = np.arange(self.batch_size)[:, None] * per_stream
        ends = [0, *np.cumsum(shuffled).tolist()]
        return Updates.of([(starts + np.arange(first, end)).ravel() for first, end in pairwise(ends)])

    def longest(self, lengths: IntArray, updates: Sequence[IntArray]) -> IntArray:
        if self.varies:
            return Updates.of(updates).sizes // self.batch_size
        return longest_of(lengths, updates)

    def learning_rate_factor(self, update: IntArray) -> float:
        return len(update) / (self.batch_size * self.window) if self.varies else 1.0

    @property
    def varies(self) -> bool:
        """True if windows have different lengths."""
        return self.half_rate > 0 or self.spread > 0

    def micro_batches(self, train: Batch, update: IntArray) -> Iterator[Batch]:
        """Yield one update, uncut, since the state of every stream is carried; it continues the update before it."""
        if not len(update):
            return
        if self.varies:
            per_stream = train.rows.n_rows // self.batch_size
            starts = update[np.diff(update // per_stream, prepend=-1) != 0]
            width = len(update) // len(starts)
            rows, tokens = select_spans(starts, np.full(len(starts), width), train.rows.device)
            windows = replace(self._gather(train, rows, tokens), index=starts // per_stream)
        else:
            windows = train.select(update, carries_state=True)
        yield self._lay_out(windows)

    def shares(self, update: IntArray, world: int) -> list[IntArray]:
        """Return whole streams, in their order: each rank keeps its streams, and carries only their state."""
        return [streams.ravel() for streams in np.array_split(update.reshape(self.batch_size, -1), world)]

    def evaluation_batches(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Yield every token of a split (one row, not arranged) once, in `evaluation_streams`, window by window.

        Streams have N / evaluation_streams tokens, rounded up. A stream that has ended contributes empty rows.
        """
        per_stream = -(-split.real_tokens // self.evaluation_streams)
        starts = np.minimum(np.arange(self.evaluation_streams + 1) * per_stream, split.real_tokens)
        arranged = self._windows(split, np.diff(starts), per_stream)
        for rows in cut(row_numbers(arranged.rows.n_rows), self.evaluation_streams):
            yield self._lay_out(arranged.select(rows, carries_state=True))

    def padding(self, lengths: IntArray, updates: Sequence[IntArray]) -> dict[str, int]:
        return no_padding()

    def shapes(self, lengths: IntArray, updates: Sequence[IntArray], blocks: bool = False) -> Shapes:
        """Return the shapes of some updates; windows of equal lengths never run in blocks."""
        return shapes_of(updates, lengths)

    def evaluation_shapes(self, splits: Sequence[Batch], batch_size: int, blocks: bool = False) -> Shapes:
        """Return the shape of the largest evaluation batch of each split; `batch_size` is not used."""
        tokens = np.array([split.real_tokens for split in splits])
        rows = np.full(len(splits), self.evaluation_streams)
        widths = np.minimum(self.window, -(-tokens // self.evaluation_streams))
        return Shapes.of(rows, np.maximum(1, widths), np.minimum(rows * widths, tokens))

    def with_batch_size(self, batch_size: int) -> Self:
        return replace(self, batch_size=batch_size)

    def with_micro_batch(self, micro_batch: int | None) -> Self:
        """Return the strategy itself, whose updates are whole; raise a ValueError if `micro_batch` is a number."""
        if micro_batch is not None:
            raise ValueError(f"micro_batch={micro_batch}: the state is carried, so updates cannot be cut; use null")
        return self

    def with_streams(self, streams: int | None, window: int | None) -> Self:
        return replace(
            self,
            batch_size=streams or self.batch_size,
            evaluation_streams=streams or self.evaluation_streams,
            window=window or self.window,
        )

    def _windows(self, split: Batch, stream_lengths: IntArray, stride: int) -> Batch:
        """Gather the rows of `arrange`, column by column; stream s has `stream_lengths[s]` tokens from s * stride."""
        if split.rows.n_rows != 1 or not isinstance(split.target, Ragged):
            raise HydromelError(
                f"batching={self.name} needs one text with one target per token (task=lm, unit=stream); "
                f"got {split.rows.n_rows} rows; use a batching strategy for independent rows"
            )
        first = np.arange(0, stride, self.window)[:, None]
        lengths = np.clip(stream_lengths - first, 0, self.window).ravel()
        starts = (np.arange(len(stream_lengths)) * stride + first).ravel()
        return self._gather(split, *select_spans(starts, lengths, split.rows.device))

    def _gather(self, split: Batch, rows: Rows, tokens: Tensor) -> Batch:
        """Return a batch of `rows` with the given tokens of the split."""
        assert isinstance(split.target, Ragged)
        features = {name: feature.select_by(rows, tokens) for name, feature in split.features.items()}
        return Batch(features, split.target.select_by(rows, tokens), np.arange(rows.n_rows), carries_state=True)

    def _lay_out(self, batch: Batch) -> Batch:
        """Return a packed batch in this strategy's layout."""
        return batch.pad() if self.layout == "padded" else batch

    def _window_lengths(self, total: int, seed: int) -> IntArray:
        """Draw window lengths that add up to `total`; all but the last are at least `_MIN_WINDOW`."""
        rng, shortest = np.random.default_rng(seed), min(_MIN_WINDOW, self.window)
        means = np.where(rng.random(total) < self.half_rate, self.window / 2, self.window)
        drawn = np.maximum(shortest, rng.normal(means, self.spread).astype(np.int64))
        ends = np.minimum(np.cumsum(drawn), total)
        lengths: IntArray = np.diff(ends[: np.searchsorted(ends, total) + 1], prepend=0)
        return lengths
