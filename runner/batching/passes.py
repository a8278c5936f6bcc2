"""The sizes of all that a strategy sends through a model, in training and in evaluation, without laying it out."""

from __future__ import annotations

import numpy as np

from runner.batch import Batch
from runner.batching.loader import Batching
from runner.batching.plan import by_length
from runner.batching.shapes import Shapes, Updates, shapes_of
from runner.batching.stream import Stream


def micro_batches(batching: Batching | Stream, updates: Updates, train: Batch) -> Shapes:
    """The shapes of what goes through the model at once in training."""
    lengths = train.rows.host_lengths
    if isinstance(batching, Stream):
        return shapes_of(updates, lengths)
    return shapes_of(updates, lengths, batching.micro_batch, _width_multiple(batching))


def evaluation_batches(batching: Batching | Stream, splits: list[Batch], batch_size: int) -> Shapes:
    """The shapes of what goes through it at once in evaluation."""
    if isinstance(batching, Stream):
        rows = np.full(len(splits), batching.evaluation_streams)
        widths = np.minimum(batching.window, [-(-one.real_tokens // batching.evaluation_streams) for one in splits])
        return Shapes(rows, np.maximum(1, widths), np.minimum(rows * widths, [one.real_tokens for one in splits]))
    each = [split.rows.host_lengths for split in splits]
    shapes = [shapes_of(by_length(one, batch_size), one, None, _width_multiple(batching)) for one in each]
    return Shapes(*(np.concatenate([getattr(one, name) for one in shapes]) for name in ("rows", "widths", "tokens")))


def _width_multiple(batching: Batching) -> int:
    return batching.width_multiple if batching.layout in ("padded", "unmasked") else 1
