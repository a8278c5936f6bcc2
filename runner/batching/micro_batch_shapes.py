"""The sizes of all micro-batches of a strategy, in training and in evaluation, without building them."""

from __future__ import annotations

import numpy as np

from runner.batching.plan import by_length
from runner.batching.shapes import Shapes, Updates, concatenate, in_blocks, shapes_of
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.ragged.batch import Batch


def micro_batches(batching: Batching | Stream, updates: Updates, train: Batch, blocks: bool = False) -> Shapes:
    """Return the shapes of the micro-batches of training.

    Args:
        batching: the strategy.
        updates: the rows of each update.
        train: the training set.
        blocks: the model runs packed rows in blocks; gradients keep all of them in memory.
    """
    lengths = train.rows.host_lengths
    if isinstance(batching, Stream):
        return shapes_of(updates, lengths)
    shapes = shapes_of(updates, lengths, batching.micro_batch, _width_multiple(batching))
    return in_blocks(shapes, lengths[np.concatenate(updates)], "all") if blocks and not batching.pads else shapes


def evaluation_batches(
    batching: Batching | Stream, splits: list[Batch], batch_size: int, blocks: bool = False
) -> Shapes:
    """Return the shapes of the batches of evaluation.

    Args:
        batching: the strategy.
        splits: the splits to evaluate.
        batch_size: rows of a batch; streams ignore it.
        blocks: the model runs packed rows in blocks, of which only one is in memory at a time.
    """
    if isinstance(batching, Stream):
        rows = np.full(len(splits), batching.evaluation_streams)
        widths = np.minimum(batching.window, [-(-split.real_tokens // batching.evaluation_streams) for split in splits])
        return Shapes.of(
            rows, np.maximum(1, widths), np.minimum(rows * widths, [split.real_tokens for split in splits])
        )
    shapes = []
    for lengths in (split.rows.host_lengths for split in splits):
        batches = by_length(lengths, batch_size)
        whole = shapes_of(batches, lengths, None, _width_multiple(batching))
        in_order = lengths[np.concatenate(batches)]
        shapes.append(in_blocks(whole, in_order, "largest") if blocks and not batching.pads else whole)
    return concatenate(shapes)


def _width_multiple(batching: Batching) -> int:
    """Return the multiple that widths are rounded up to: 1 if the layout has no padding."""
    return batching.width_multiple if batching.layout in ("padded", "unmasked") else 1
