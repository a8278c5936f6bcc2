"""A task: restore the case of each token of lower-cased text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from runner.interfaces import Encoder
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.heads.outputs import OutputHead, output_of
from tasks.metrics.metrics import LabelMetric
from tasks.targets import require_tokens, token_vectors

CASES = ("lower", "title", "upper", "mixed")


def cases(table: pa.Table) -> pa.Array:
    """Return the case of every token of the table, (N,) strings."""
    tokens = table["tokens"].combine_chunks().flatten()
    lower, title, upper = (pc.equal(tokens, change(tokens)) for change in (pc.utf8_lower, pc.utf8_title, pc.utf8_upper))
    return pc.if_else(lower, "lower", pc.if_else(title, "title", pc.if_else(upper, "upper", "mixed")))


class RestoreCase:
    """Predict for each token whether it is written in lower, title, upper or mixed case.

    Args:
        name: name in messages and records.
        quality: figure that runs are compared by.
    """

    causal: bool = False
    carries_state: bool = False

    def __init__(self, *, name: str, quality: Literal["accuracy", "macro_f1"]) -> None:
        self.name, self.main_metric = name, quality
        self.metric = LabelMetric()

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the possible targets."""
        return Vocab(CASES)

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return a split with its targets, one id per token."""
        rows = next(iter(features.values())).rows
        ids = torch.from_numpy(vocabs["target"].encode(cases(table)).astype(np.int64))
        return Batch(features, Ragged(ids, rows, "packed"), np.arange(rows.n_rows))

    def count(self, batch: Batch) -> int:
        """Return the number of targets in a batch."""
        return batch.real_tokens

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> CaseHead:
        """Return the layer that turns the encoder's vectors into scores."""
        require_tokens(encoder, self.name)
        return CaseHead(encoder.output_size)


class CaseHead(OutputHead):
    """A linear layer per token, trained by cross entropy: token vectors (size) -> scores (N, 4)."""

    def __init__(self, size: int) -> None:
        super().__init__(output_of("softmax", label_smoothing=0.0))
        self.linear = nn.Linear(size, len(CASES))

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        scores: Tensor = self.linear(token_vectors(encoded, batch))
        return scores
