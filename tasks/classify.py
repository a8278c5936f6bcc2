"""Classification: one label for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import Fraction, PositiveInt
from runner.inference.outcomes import Outcomes
from runner.interfaces import Encoder
from runner.layers.mlp import HiddenLayers
from runner.layers.pooling import Pooling, pooling
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.baselines.baselines import figures, linear_svm
from tasks.heads.label_weights import LabelWeights, weighted
from tasks.heads.outputs import AnswerOutput, OutputHead, OutputKind, output_of, scorer
from tasks.metrics.example_scores import of_answers
from tasks.metrics.metrics import LabelMetric
from tasks.predictions.inspectors import LabelInspector
from tasks.targets import answer_ids, answers, column, majority_answers, place


class Classify:
    """One label for each row, from the column `label`.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared.
        pooling: how the token vectors of a row become one. Rows without tokens pool to zeros.
        head: what scores mean: softmax (cross entropy), hinge (margins, as of a support vector machine), or count
            (frequencies, learned in one step; it takes scores as they are given).
        scores: by a linear layer from the pooled vectors, or given: those vectors are scores.
        hidden: sizes of the hidden layers (ReLU) between the pooled vectors and their scores; [] for none.
        dropout: probability, on the pooled vectors and behind each hidden layer.
        label_smoothing: share of a softmax' target that all labels have in common (Szegedy et al. 2016), 0 to below 1.
        label_weights: what a row weighs in training by its label (`tasks.heads.label_weights`); null: every row 1.

    Raises:
        HydromelError: hidden layers behind scores, or smoothing without a softmax.
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
        hidden: list[PositiveInt],
        dropout: Fraction,
        label_smoothing: Fraction,
        label_weights: LabelWeights | None,
    ) -> None:
        self.name = name
        self.quality: str = quality
        self.pooling = pooling
        self.output_kind, self.given = head, scores == "given" or head == "count"
        self.output = output_of(head, label_smoothing)
        self.hidden, self.dropout = hidden, dropout
        self.label_weights = label_weights
        if hidden and self.given:
            raise HydromelError(
                f"task.hidden={hidden}: pooled vectors that are scores have no layers behind them; use []"
            )

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
            HydromelError: scores are to be given, by vectors that cannot be scores, or a weight for an unknown label.
        """
        labels = vocabs["target"]
        hidden = HiddenLayers(encoder.output_size, self.hidden, self.dropout)
        linear = scorer(self.given, hidden.output_size, len(labels), self.output_kind)
        output = weighted(self.output, self.label_weights, labels)
        return ClassifyHead(pooling(self.pooling, encoder.output_size), hidden, linear, output)

    def metric(self, vocabs: Mapping[str, Vocab]) -> LabelMetric:
        return LabelMetric(labels=vocabs["target"].tokens)

    def inspector(self, vocabs: Mapping[str, Vocab]) -> LabelInspector:
        return LabelInspector(vocabs["target"].tokens)

    def outcomes(self, said: IntArray, split: Batch, vocabs: Mapping[str, Vocab]) -> Outcomes | None:
        """`right` and `answers` of each row; none of macro F1, which is no sum over rows."""
        return of_answers(answers(split).numpy(), said, split) if self.quality == "accuracy" else None

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


class ClassifyHead(OutputHead):
    """Pool, transform, score: token vectors (D) -> (B, C).

    Args:
        pool: rows of (length, D) -> (B, D).
        hidden: (B, D) -> (B, H).
        linear: (B, H) -> (B, C).
        output: what scores mean.
    """

    def __init__(
        self,
        pool: Callable[[Ragged], Tensor],
        hidden: HiddenLayers,
        linear: nn.Module,
        output: AnswerOutput,
    ) -> None:
        super().__init__(output)
        self.pool = pool
        self.hidden = hidden
        self.linear = linear

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        scores: Tensor = self.linear(self.hidden(self.pool(encoded), encoded.rows.single))
        return scores
