"""Regression: one number per row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.types import Fraction, Name, PositiveFloat, Sizes
from runner.interfaces import Encoder, Head, Pairs
from runner.layers.pooling import Mlp, Pooling
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.baselines.baselines import mean_value, ridge
from tasks.heads.numbers import NumberLoss, NumberOutput
from tasks.heads.pooled import PooledHead, pool_of
from tasks.metrics.numbers import NumberMetric
from tasks.predictions.numbers import NumberInspector
from tasks.targets import numbers_of

OUTPUT = Vocab(("value",))  # the name of the only score


class Regress:
    """The task of predicting a number per row, from the column `value`, or from `label` if labels are numbers.

    Args:
        name: the task's name in messages and records.
        quality: the metric used to compare runs and to choose the best checkpoint.
        pooling: how the token vectors of a row are reduced to one vector. Rows without tokens pool to zeros.
        pairs: the rows have two texts, which are encoded apart or joined (`tasks.classify.Classify`); null: one.
        loss: mse, mae or huber, of targets that are standardised by the training set (`NumberOutput`).
        delta: error at which a huber loss turns from squared to absolute, in standard deviations.
        hidden: sizes of the hidden layers (ReLU) between the pooled vectors and the linear layer; [] for none.
        dropout: dropout probability on the pooled vectors and after each hidden layer.
    """

    causal: bool = False
    carries_state: bool = False

    def __init__(
        self,
        *,
        name: Name,
        quality: Literal["pearson", "spearman", "r2", "mse", "mae"],
        pooling: Pooling,
        pairs: Pairs | None,
        loss: NumberLoss,
        delta: PositiveFloat,
        hidden: Sizes,
        dropout: Fraction,
    ) -> None:
        self.name, self.main_metric, self.metric = name, quality, NumberMetric()
        self.pooling, self.pairs, self.hidden, self.dropout = pooling, pairs, hidden, dropout
        self.loss, self.delta = loss, delta

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the name of the only score.

        Raises:
            HydromelError: a target is no number.
        """
        for block in train:
            numbers_of(block, self.name)
        return OUTPUT

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return the split as a batch, with a target of (B,) float64.

        Raises:
            HydromelError: a target is no number.
        """
        return Batch(features, torch.from_numpy(numbers_of(table, self.name)), np.arange(table.num_rows))

    def count(self, batch: Batch) -> int:
        return len(batch.index)

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> PooledHead:
        """Return a head for vectors of the encoder's output size."""
        pool, size = pool_of(self.pooling, encoder.output_size, self.pairs == "apart")
        hidden = Mlp(size, self.hidden, self.dropout)
        output = NumberOutput(self.loss, self.delta)
        return PooledHead(pool, hidden, nn.Linear(hidden.output_size, 1), output)

    def inspector(self, vocabs: Mapping[str, Vocab], head: Head) -> NumberInspector:
        return NumberInspector()

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the mean of the training set, for every row of `test`."""
        return mean_value(train, test)

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor]]:
        """Yield the predictions of ridge regression on unigrams and bigrams of the first feature (of both texts)."""
        words = vocabs[next(iter(train.features))]
        yield "ridge", ridge(train, test, words, self.pairs == "joined")
