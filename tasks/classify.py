"""Classification: one label per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.common.types import Fraction, Name, Sizes
from runner.interfaces import Encoder, Head, Pairs
from runner.layers.pooling import Mlp, PairPool, Pooling, pooling
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.baselines.baselines import linear_svm, majority_ids
from tasks.heads.outputs import LabelWeights, Output, OutputHead, OutputKind, output_of, scorer, weighted
from tasks.metrics.metrics import LabelMetric
from tasks.predictions.inspectors import LabelInspector
from tasks.targets import column, label_ids, place


class Classify:
    """The task of predicting one label per row, from the column `label`.

    Args:
        name: the task's name in messages and records.
        quality: the metric used to compare runs and to choose the best checkpoint.
        pooling: how the token vectors of a row are reduced to one vector. Rows without tokens pool to zeros.
        pairs: the rows have two texts, `tokens` and `tokens_b`. apart: each is encoded and pooled by itself, and the
            vectors u and v are combined to [u, v, |u - v|, u * v]; joined: they are one text with a separator between
            them; null: rows have one text.
        head: the meaning of the scores: softmax (cross entropy), hinge (margins, as in a support vector machine), or
            count (frequencies, learned in one step; it uses the encoder's scores unchanged).
        scores: linear: computed by a linear layer from the pooled vectors; given: the pooled vectors are the scores.
        hidden: sizes of the hidden layers (ReLU) between the pooled vectors and the linear layer; [] for none.
        dropout: dropout probability on the pooled vectors and after each hidden layer.
        label_smoothing: share of the softmax target spread evenly over all labels (Szegedy et al. 2016), 0 to below 1.
        label_weights: weight of each row in the training loss, by its label (`tasks.heads.outputs`); null: 1.

    Raises:
        HydromelError: hidden layers or pairs=apart with scores=given, or label smoothing without a softmax.
    """

    causal: bool = False
    carries_state: bool = False

    def __init__(
        self,
        *,
        name: Name,
        quality: Literal["accuracy", "macro_f1"],
        pooling: Pooling,
        pairs: Pairs | None,
        head: OutputKind,
        scores: Literal["linear", "given"],
        hidden: Sizes,
        dropout: Fraction,
        label_smoothing: Fraction,
        label_weights: LabelWeights | None,
    ) -> None:
        self.name = name
        self.metric, self.main_metric = LabelMetric(), quality
        self.pooling, self.pairs = pooling, pairs
        self.output_kind, self.given = head, scores == "given" or head == "count"
        self.output = output_of(head, label_smoothing)
        self.hidden, self.dropout = hidden, dropout
        self.label_weights = label_weights
        if hidden and self.given:
            raise HydromelError(
                f"task.hidden={hidden}: with task.scores=given or task.head=count the pooled vectors are the scores, "
                "without layers in between; use task.hidden=[]"
            )
        if pairs == "apart" and self.given:
            raise HydromelError(
                "task.pairs=apart: with task.scores=given or task.head=count the pooled vectors are the scores, and "
                "those of two texts cannot be; use task.pairs=joined"
            )

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        return Vocab.labels(column(train, "label", self.name))

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return the split as a batch, with a target of (B,) label ids.

        Raises:
            HydromelError: a label that is not in the training set.
        """
        labels = column(table, "label", self.name)
        target = label_ids(labels, vocabs["target"], lambda row: place(table, row), "label")
        return Batch(features, target, np.arange(len(labels)))

    def count(self, batch: Batch) -> int:
        return len(batch.index)

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> ClassifyHead:
        """Return a head for vectors of the encoder's output size.

        Raises:
            HydromelError: with scores=given, a vector size other than the number of labels; or a weight for an
                unknown label.
        """
        labels = vocabs["target"]
        pool, size = pooling(self.pooling, encoder.output_size), encoder.output_size
        if self.pairs == "apart":
            pool, size = PairPool(pool), size * PairPool.TIMES
        hidden = Mlp(size, self.hidden, self.dropout)
        linear = scorer(self.given, hidden.output_size, len(labels), self.output_kind)
        output = weighted(self.output, self.label_weights, labels)
        return ClassifyHead(pool, hidden, linear, output)

    def inspector(self, vocabs: Mapping[str, Vocab], head: Head) -> LabelInspector:
        return LabelInspector(vocabs["target"].tokens)

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the most frequent label of the training set, for every row of `test`."""
        return majority_ids(train, test, len(vocabs["target"]))

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor]]:
        """Yield the predictions of a linear SVM over the unigrams and bigrams of the first feature (of both texts)."""
        words = vocabs[next(iter(train.features))]
        yield "svm", linear_svm(train, test, words, len(vocabs["target"]), self.pairs == "joined")


class ClassifyHead(OutputHead):
    """A classification head that pools, transforms and scores: token vectors (D) -> (B, C).

    Args:
        pool: rows of (length, D) -> (B, D); two rows each, if rows are pairs that are encoded apart.
        hidden: (B, D) -> (B, H).
        linear: (B, H) -> (B, C).
        output: the loss and predictions defined on the scores.
    """

    def __init__(self, pool: Callable[[Ragged], Tensor], hidden: Mlp, linear: nn.Module, output: Output) -> None:
        super().__init__(output)
        self.pool, self.hidden, self.linear = pool, hidden, linear

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        scores: Tensor = self.linear(self.hidden(self.pool(encoded), batch.single))
        return scores
