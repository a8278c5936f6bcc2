"""The contribution of each row (or block of a text) to accuracy, span F1 or perplexity. Numpy, no loops.

Shapes: B rows, N targets (one per row, or one per real token), n blocks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from runner.common.arrays import FloatArray, IntArray
from runner.inference.outcomes import Outcomes
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.spans.tags import SpanArrays, are_right
from tasks.targets import target_rows


def accuracy_outcomes(gold: IntArray, predicted: IntArray, split: Batch) -> Outcomes:
    """Return the terms of accuracy in percent, from ids (N,): 100 for each correct target, and all targets."""
    if not isinstance(split.target, Ragged):
        ones = np.ones(len(gold), dtype=np.int64)
        return Outcomes(100 * (predicted == gold), ones, ones)
    rows = target_rows(split)
    row = np.repeat(np.arange(rows.n_rows), rows.host_lengths)
    correct = np.bincount(row[predicted == gold], minlength=rows.n_rows)
    return Outcomes(100 * correct, rows.host_lengths, rows.host_lengths)


def f1_outcomes(gold: SpanArrays, predicted: SpanArrays, offsets: IntArray) -> Outcomes:
    """Return the terms of F1 in percent, given the rows' offsets (B+1,): 200 correct / (predicted + gold spans)."""
    correct = predicted[0][are_right(predicted, gold, int(offsets[-1]))]

    # Starts are sorted, so the spans of a row are those between the ranks of its two offsets.
    def count_per_row(starts: IntArray) -> IntArray:
        return np.diff(np.searchsorted(starts, offsets)).astype(np.int64)

    n_gold = count_per_row(gold[0])
    return Outcomes(200 * count_per_row(correct), count_per_row(predicted[0]) + n_gold, n_gold)


def loss_outcomes(nats: FloatArray, lengths: IntArray, f: Literal["identity", "exp"]) -> Outcomes:
    """Return the nats and tokens of each row (or block) of `lengths` (n,), from the nats (N,) of each token."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return Outcomes(np.bincount(row, weights=nats, minlength=len(lengths)), lengths, lengths, f)


def blocks(n_tokens: int) -> IntArray:
    """Return the lengths (n,) of about sqrt(N) equal blocks, up to rounding, of a stream of N tokens.

    The tokens of a text are not independent examples; blocks nearly are. Longer blocks are less dependent, but there
    are fewer of them. sqrt(N) is longer than the N^(1/3) that suffices for short-range dependence (Hall, Horowitz and
    Jing 1995).
    """
    n_blocks = max(1, round(n_tokens**0.5))
    lengths: IntArray = np.diff(np.arange(n_blocks + 1) * n_tokens // n_blocks)
    return lengths
