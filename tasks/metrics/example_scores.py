"""What each row (or block of a text) contributes to accuracy, F1 of spans, or perplexity. Numpy, no loops.

Shapes: B rows, N answers (of rows, or of real tokens), n blocks.
"""

from __future__ import annotations

import numpy as np

from runner.common.arrays import FloatArray, IntArray
from runner.inference.outcomes import Outcomes
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.spans.tags import SpanArrays, are_right
from tasks.targets import answer_rows


def of_answers(gold: IntArray, said: IntArray, split: Batch) -> Outcomes:
    """`right` and `answers` of each row, from what is right and what was answered, (N,)."""
    if not isinstance(split.target, Ragged):
        return {"right": (said == gold).astype(np.int64), "answers": np.ones(len(gold), dtype=np.int64)}
    rows = answer_rows(split)
    row = np.repeat(np.arange(rows.n_rows), rows.host_lengths)
    return {"right": np.bincount(row[said == gold], minlength=rows.n_rows), "answers": rows.host_lengths}


def of_spans(gold: SpanArrays, predicted: SpanArrays, offsets: IntArray) -> Outcomes:
    """`right`, `predicted` and `gold` spans of each row; rows begin at `offsets` (B+1,)."""
    right = predicted[0][are_right(predicted, gold, int(offsets[-1]))]

    def a_row(starts: IntArray) -> IntArray:
        return np.diff(np.searchsorted(starts, offsets)).astype(np.int64)

    return {"right": a_row(right), "predicted": a_row(predicted[0]), "gold": a_row(gold[0])}


def of_losses(nats: FloatArray, lengths: IntArray) -> Outcomes:
    """`nats` and `tokens` of each row (or block) of `lengths` (n,), from nats (N,) of each token."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return {"nats": np.bincount(row, weights=nats, minlength=len(lengths)), "tokens": lengths}


def blocks(n_tokens: int) -> IntArray:
    """(n,) lengths of equal blocks of a stream, but for rounding: as many as they are long.

    Tokens of a text are no independent examples, blocks nearly are: the longer they are, the more so (longer than
    the n^(1/3) that suffices for short memory, Hall, Horowitz and Jing 1995), and the fewer there are.
    """
    n_blocks = max(1, round(n_tokens**0.5))
    lengths: IntArray = np.diff(np.arange(n_blocks + 1) * n_tokens // n_blocks)
    return lengths
