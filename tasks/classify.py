"""Classification: one label for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from runner.batch import Batch
from runner.layers.dropout import Dropout
from runner.layers.pooling import pooling
from runner.ragged import Ragged
from runner.task import Encoder, Loss
from runner.types import Fraction
from runner.vocab import Vocab
from tasks.answers import answer_ids, column, cross_entropies, majority_answers, place, softmax, summed_cross_entropy
from tasks.metrics import LabelMetric
from tasks.predictions import LabelInspector

Pooling = Literal["mean", "max", "min", "sum", "last", "first", "attention"]


class Classify:
    """One label for each row, from the column `label`.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared.
        pooling: how the token vectors of a row become one. Rows without tokens pool to zeros.
        dropout: probability, on the pooled vectors.
    """

    causal: bool = False

    def __init__(
        self, *, name: str, quality: Literal["accuracy", "macro_f1"], pooling: Pooling, dropout: Fraction
    ) -> None:
        self.name = name
        self.quality: str = quality
        self.pooling = pooling
        self.dropout = dropout

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        return Vocab.labels(column(train, "label", self.name))

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """The split, with a target of (B,) ids.

        Raises:
            HydromelError: a label that train lacks.
        """
        labels = column(table, "label", self.name)
        target = answer_ids(labels, vocabs["target"], lambda row: place(table, row), "label")
        return Batch(features, target, np.arange(len(labels)))

    def count(self, batch: Batch) -> int:
        return len(batch.index)

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> ClassifyHead:
        return ClassifyHead(encoder.output_size, len(vocabs["target"]), self.pooling, self.dropout)

    def metric(self, vocabs: Mapping[str, Vocab]) -> LabelMetric:
        return LabelMetric(labels=vocabs["target"].tokens)

    def inspector(self, vocabs: Mapping[str, Vocab]) -> LabelInspector:
        return LabelInspector(vocabs["target"].tokens)

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metrics on `test` of always answering train's most frequent label."""
        metric = self.metric(vocabs)
        metric.update(majority_answers(train, test, len(vocabs["target"])), test)
        return metric.compute()


class ClassifyHead(nn.Module):
    """Pool, drop out, score: token vectors (D) -> (B, C)."""

    def __init__(self, input_size: int, n_labels: int, pool: Pooling, dropout: float) -> None:
        super().__init__()
        self.pool = pooling(pool, input_size)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(input_size, n_labels)

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        pooled = self.dropout(self.pool(encoded), encoded.rows.single, "packed")
        scores: Tensor = self.linear(pooled)
        return scores

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        return summed_cross_entropy(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return cross_entropies(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return scores.argmax(dim=1)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return softmax(scores)
