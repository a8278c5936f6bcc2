"""The work of a plan as the model does it: in tokens, or in pieces of words where it reads these."""

from __future__ import annotations

from collections.abc import Sequence

from runner.batching.plan import no_padding
from runner.common.arrays import IntArray
from runner.interfaces import PADDED, BatchingStrategy
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes


def computed_shapes(
    batching: BatchingStrategy, train: Batch, updates: Sequence[IntArray], blocks: bool = False
) -> Shapes:
    """Return the shapes of the micro-batches of some updates (`BatchingStrategy.shapes`) as the model computes them.

    `train` is what `batching.arrange` returned.
    """
    always_padded = train.pieces is not None and train.pieces.always_padded
    return batching.shapes(train.cost_lengths, updates, blocks and not always_padded)


def computed_padding(batching: BatchingStrategy, train: Batch, updates: Sequence[IntArray]) -> dict[str, int]:
    """Return the padding of some updates by cause (`BatchingStrategy.padding`), of what the model computes."""
    if batching.layout in PADDED or train.pieces is None or not train.pieces.always_padded or not updates:
        return batching.padding(train.cost_lengths, updates)
    shapes = computed_shapes(batching, train, updates)
    return {**no_padding(), "spread": int((shapes.cells - shapes.tokens).sum())}
