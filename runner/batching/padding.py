"""The amount of padding in updates, by cause. It uses host integers only, so nothing synchronises with the device."""

from __future__ import annotations

import numpy as np

from runner.common.arrays import BoolArray, IntArray
from runner.common.records import PADDING_CAUSES


def padding_by_cause(lengths: IntArray, sizes: IntArray, is_last: BoolArray, width_multiple: int) -> dict[str, int]:
    """Return the number of padded tokens of some micro-batches, by cause.

    Args:
        lengths: (R,) length of each row, micro-batch after micro-batch.
        sizes: (M,) number of rows of each micro-batch, at least 1.
        is_last: (M,) whether the micro-batch belongs to an update that is smaller than the others.
        width_multiple: padded widths are rounded up to a multiple of it.

    Returns:
        `spread`: padding up to the longest row of the micro-batch (at least 1); `last_batch`: the same in updates with
        `is_last`; `rounding`: padding from there to the multiple.
    """
    if not len(sizes):
        return no_padding()
    starts = np.cumsum(sizes) - sizes
    longest = np.maximum(1, np.maximum.reduceat(lengths, starts))
    spread = longest * sizes - np.add.reduceat(lengths, starts)
    rounding = -longest % width_multiple * sizes
    causes = (spread[~is_last].sum(), spread[is_last].sum(), rounding.sum())
    return {cause: int(tokens) for cause, tokens in zip(PADDING_CAUSES, causes, strict=True)}


def no_padding() -> dict[str, int]:
    """Return zero padded tokens for every cause."""
    return dict.fromkeys(PADDING_CAUSES, 0)
