"""Cut long rows to a maximum length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from runner.config.schema import Keep
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import select_spans


@dataclass(frozen=True)
class Truncation:
    """The options of cutting long rows.

    Attributes:
        max_length: maximum number of tokens of a row; None: no limit.
        keep: the part that longer rows keep; see `truncate`.
    """

    max_length: int | None
    keep: Keep

    def apply(self, batch: Batch) -> Batch:
        """Return the batch with rows of at most `max_length` tokens."""
        return batch if self.max_length is None else truncate(batch, self.max_length, self.keep)


def truncate(batch: Batch, max_length: int, keep: Keep) -> Batch:
    """Return the batch with rows of at most `max_length` tokens.

    Args:
        batch: the rows.
        max_length: maximum number of tokens of a row.
        keep: the part that longer rows keep: their first tokens (head), their last tokens (tail), or both, half of
            `max_length` each (the first half is the larger one), joined without a gap.
    """
    if batch.rows.max_len <= max_length:
        return batch
    lengths = np.minimum(batch.rows.host_lengths, max_length)
    rows, _ = select_spans(batch.rows.host_offsets[:-1], lengths, batch.rows.device)
    assert rows.source is not None
    before_gap = {"head": max_length, "tail": 0, "both": max_length - max_length // 2}[keep]
    behind_gap = np.arange(rows.n_tokens) - np.repeat(rows.host_offsets[:-1], lengths) >= before_gap
    rows.source = rows.source + behind_gap * np.repeat(batch.rows.host_lengths - lengths, lengths)
    tokens = torch.from_numpy(rows.source).to(batch.rows.device)
    features = {name: feature.select_by(rows, tokens) for name, feature in batch.features.items()}
    target = batch.target.select_by(rows, tokens) if isinstance(batch.target, Ragged) else batch.target
    return Batch(features, target, batch.index)
