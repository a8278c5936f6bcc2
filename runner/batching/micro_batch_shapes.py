"""The sizes of all that a strategy sends through a model, in training and in evaluation, without laying it out."""

from __future__ import annotations

import numpy as np

from runner.batching.plan import by_length
from runner.batching.shapes import Shapes, Updates, in_blocks, joined, shapes_of
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.ragged.batch import Batch


def micro_batches(batching: Batching | Stream, updates: Updates, train: Batch, blocks: bool = False) -> Shapes:
    """The shapes of what goes through the model at once in training.

    Args:
        blocks: the model has packed rows in blocks, of which gradients need all.
    """
    lengths = train.rows.host_lengths
    if isinstance(batching, Stream):
        return shapes_of(updates, lengths)
    shapes = shapes_of(updates, lengths, batching.micro_batch, _width_multiple(batching))
    return in_blocks(shapes, lengths[np.concatenate(updates)], "all") if blocks and not batching.pads else shapes


def evaluation_batches(
    batching: Batching | Stream, splits: list[Batch], batch_size: int, blocks: bool = False
) -> Shapes:
    """The shapes of what goes through it at once in evaluation.

    Args:
        blocks: the model has packed rows in blocks, one at a time.
    """
    if isinstance(batching, Stream):
        rows = np.full(len(splits), batching.evaluation_streams)
        widths = np.minimum(batching.window, [-(-one.real_tokens // batching.evaluation_streams) for one in splits])
        return Shapes.of(rows, np.maximum(1, widths), np.minimum(rows * widths, [one.real_tokens for one in splits]))
    shapes = []
    for lengths in (split.rows.host_lengths for split in splits):
        batches = by_length(lengths, batch_size)
        found = shapes_of(batches, lengths, None, _width_multiple(batching))
        in_order = lengths[np.concatenate(batches)]
        shapes.append(in_blocks(found, in_order, "largest") if blocks and not batching.pads else found)
    return joined(shapes)


def _width_multiple(batching: Batching) -> int:
    return batching.width_multiple if batching.layout in ("padded", "unmasked") else 1
