"""Cut long rows to a maximum length."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        keep: the part that longer rows keep: their first tokens (head), their last tokens (tail), or both, half of
            `max_length` each (the first half is the larger one), joined without a gap.
    """

    max_length: int | None
    keep: Keep

    def apply(self, batch: Batch) -> Batch:
        """Return the batch with rows of at most `max_length` tokens.

        Targets per token that are cut off, which `keep=head` does at the end of rows, become the batch's `cut`.
        """
        longest = self.max_length
        if longest is None or batch.rows.max_len <= longest:
            return batch
        lengths = np.minimum(batch.rows.host_lengths, longest)
        rows, _ = select_spans(batch.rows.host_offsets[:-1], lengths, batch.rows.device)
        assert rows.source is not None
        before_gap = {"head": longest, "tail": 0, "both": longest - longest // 2}[self.keep]
        behind_gap = np.arange(rows.n_tokens) - np.repeat(rows.host_offsets[:-1], lengths) >= before_gap
        rows.source = rows.source + behind_gap * np.repeat(batch.rows.host_lengths - lengths, lengths)
        tokens = torch.from_numpy(rows.source).to(batch.rows.device)
        features = {name: feature.select_by(rows, tokens) for name, feature in batch.features.items()}
        if not isinstance(batch.target, Ragged):
            return replace(batch, features=features, pieces=None)
        starts, rest = batch.rows.host_offsets[:-1] + lengths, batch.rows.host_lengths - lengths
        cut = batch.target.select_by(*select_spans(starts, rest, batch.rows.device))
        return replace(batch, features=features, target=batch.target.select_by(rows, tokens), cut=cut, pieces=None)
