"""Classification: one label for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from runner.batch import Batch
from runner.layers.dropout import Dropout
from runner.layers.pooling import Pooling, pooling
from runner.ragged import Ragged
from runner.task import Encoder, Loss
from runner.types import Fraction
from runner.vocab import Vocab
from tasks.answers import answer_ids, column, majority_answers, place
from tasks.baselines import figures, linear_svm
from tasks.metrics import LabelMetric
from tasks.predictions import LabelInspector
from tasks.scores import OUTPUTS, Output, OutputKind, scorer


class Classify:
    """One label for each row, from the column `label`.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared.
        pooling: how the token vectors of a row become one. Rows without tokens pool to zeros.
        head: what scores mean: softmax (cross entropy), hinge (margins, as of a support vector machine), or count
            (frequencies, learned in one step; it takes scores as they are given).
        scores: by a linear layer from the pooled vectors, or given: those vectors are scores.
        dropout: probability, on the pooled vectors.
    """

    causal: bool = False

    def __init__(
        self,
        *,
        name: str,
        quality: Literal["accuracy", "macro_f1"],
        pooling: Pooling,
        head: OutputKind,
        scores: Literal["linear", "given"],
        dropout: Fraction,
    ) -> None:
        self.name = name
        self.quality: str = quality
        self.pooling = pooling
        self.output_kind, self.given = head, scores == "given" or head == "count"
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
        """The head for vectors of the encoder's size.

        Raises:
            HydromelError: scores are to be given, by vectors that cannot be scores.
        """
        linear = scorer(self.given, encoder.output_size, len(vocabs["target"]), self.output_kind)
        return ClassifyHead(pooling(self.pooling, encoder.output_size), self.dropout, linear, OUTPUTS[self.output_kind])

    def metric(self, vocabs: Mapping[str, Vocab]) -> LabelMetric:
        return LabelMetric(labels=vocabs["target"].tokens)

    def inspector(self, vocabs: Mapping[str, Vocab]) -> LabelInspector:
        return LabelInspector(vocabs["target"].tokens)

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metrics on `test` of always answering train's most frequent label."""
        metric = self.metric(vocabs)
        metric.update(majority_answers(train, test, len(vocabs["target"])), test)
        return metric.compute()

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, dict[str, float]]:
        """A linear SVM of words and pairs of words, from the first feature."""
        words, n_labels = vocabs[next(iter(train.features))], len(vocabs["target"])
        answer = partial(linear_svm, train, test, words, n_labels)
        return {"svm": figures(self.metric(vocabs), test, answer)}


class ClassifyHead(nn.Module):
    """Pool, drop out, score: token vectors (D) -> (B, C).

    Args:
        pool: rows of (length, D) -> (B, D).
        dropout: probability.
        linear: (B, D) -> (B, C).
        output: what scores mean.
    """

    def __init__(self, pool: Callable[[Ragged], Tensor], dropout: float, linear: nn.Module, output: Output) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = Dropout(dropout)
        self.linear = linear
        self.output = output

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        pooled = self.dropout(self.pool(encoded), encoded.rows.single, "packed")
        scores: Tensor = self.linear(pooled)
        return scores

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        return self.output.loss(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return self.output.losses(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.predict(scores, batch)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.probabilities(scores, batch)
