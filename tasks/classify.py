"""Classification: one label per row, or any number of labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.common.types import Fraction, Name, Sizes, Text
from runner.interfaces import Encoder, Head, Pairs
from runner.layers.pooling import Mlp, Pooling
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.text.arrow import offsets_of
from runner.text.vocab import Vocab
from tasks.baselines.baselines import frequent_labels, linear_svm, majority_ids, svm_sets
from tasks.heads.label_sets import LabelSetOutput, SetOutputKind, Threshold
from tasks.heads.outputs import LabelWeights, Output, OutputKind, label_weights, output_of, scorer, weighted
from tasks.heads.pooled import PooledHead, pool_of
from tasks.metrics.label_sets import LabelSetMetric
from tasks.metrics.metrics import LabelMetric
from tasks.predictions.inspectors import LabelInspector
from tasks.predictions.label_sets import LabelSetInspector
from tasks.targets import label_ids, label_lists, label_set_ids, labels_of_rows, place, target_vocab, unseen_labels

log = logging.getLogger(__name__)
# The metrics that may compare runs, by the number of labels per row; the first is the default.
_QUALITIES = {
    "one": ("accuracy", "macro_f1"),
    "many": ("micro_f1", "macro_f1", "sample_f1", "subset_accuracy"),
}


class Classify:
    """The task of predicting one label per row, from the column `label`, or a set of labels, from `labels`.

    Args:
        name: the task's name in messages and records.
        labels: one: each row has one label. many: each row has any number of labels, and each label is decided
            independently (`LabelSetOutput`).
        quality: the metric used to compare runs and to choose the best checkpoint; null: accuracy, or micro_f1.
        pooling: how the token vectors of a row are reduced to one vector. Rows without tokens pool to zeros.
        pairs: the rows have two texts, `tokens` and `tokens_b`. apart: each is encoded and pooled by itself, and the
            vectors u and v are combined to [u, v, |u - v|, u * v]; joined: they are one text with a separator between
            them; null: rows have one text.
        head: the meaning of the scores. For one label: softmax (cross entropy), hinge (margins, as in a support vector
            machine), or count (frequencies, learned in one step; it uses the encoder's scores unchanged). For many:
            sigmoid (binary cross entropy) or hinge. null: softmax, or sigmoid.
        threshold: for many labels, the probability from which a label is predicted, or how to choose it on the
            validation set: one for all labels, or per_label (`LabelSetOutput`); null: one.
        scores: linear: computed by a linear layer from the pooled vectors; given: the pooled vectors are the scores.
        hidden: sizes of the hidden layers (ReLU) between the pooled vectors and the linear layer; [] for none.
        dropout: dropout probability on the pooled vectors and after each hidden layer.
        label_smoothing: share of the target spread evenly over all labels of a softmax (Szegedy et al. 2016), or over
            yes and no of each label of a sigmoid; 0 to below 1.
        label_weights: weight of each row in the training loss, by its label (`tasks.heads.outputs`); for many labels,
            weight of a label's term in the rows that have it; null: 1.
        ignore: values that are not labels: rows with one of them are left out; for many labels, rows without any other.
        strict: refuse labels of valid and test that the training set lacks, instead of counting them as missed.

    Raises:
        HydromelError: hidden layers or pairs=apart with scores=given; label smoothing without softmax or sigmoid; or an
            option that does not apply to one label, or to many.
    """

    causal: bool = False
    carries_state: bool = False

    def __init__(
        self,
        *,
        name: Name,
        labels: Literal["one", "many"],
        quality: Literal["accuracy", "macro_f1", "micro_f1", "sample_f1", "subset_accuracy"] | None,
        pooling: Pooling,
        pairs: Pairs | None,
        head: OutputKind | SetOutputKind | None,
        threshold: Threshold | None,
        scores: Literal["linear", "given"],
        hidden: Sizes,
        dropout: Fraction,
        label_smoothing: Fraction,
        label_weights: LabelWeights | None,
        ignore: list[Text | int],
        strict: bool,
    ) -> None:
        self.name, self.many = name, labels == "many"
        self.metric: LabelMetric | LabelSetMetric = LabelSetMetric() if self.many else LabelMetric()
        self.main_metric = quality or _QUALITIES[labels][0]
        self.output_kind: OutputKind | SetOutputKind = head or ("sigmoid" if self.many else "softmax")
        heads = get_args(SetOutputKind if self.many else OutputKind)
        checked = (("quality", self.main_metric, _QUALITIES[labels]), ("head", self.output_kind, heads))
        for option, value, allowed in checked:
            if value not in allowed:
                raise HydromelError(f"task.{option}={value}: with task.labels={labels} use {', '.join(allowed)}")
        if threshold is not None and not self.many:
            raise HydromelError(
                f"task.threshold={threshold} has no effect with task.labels=one; use task.threshold=null"
            )
        if self.many and label_weights == "balanced":
            raise HydromelError(
                "task.label_weights=balanced is for one label per row, but task.labels=many; give {label: weight}"
            )
        self.threshold: Threshold = "one" if threshold is None else threshold
        self.pooling, self.pairs = pooling, pairs
        self.given = scores == "given" or head == "count"
        self.smoothing, self.label_weights = label_smoothing, label_weights
        self.hidden, self.dropout = hidden, dropout
        self.ignore, self.strict = ignore, strict
        self._output(Vocab(("label",)), None)  # refuses options that do not fit each other
        if hidden and self.given:
            raise HydromelError(
                f"task.hidden={hidden}: with task.scores=given or task.head=count the pooled vectors are the scores, "
                "without layers in between; use task.hidden=[]"
            )
        if pairs == "apart" and self.given:
            raise HydromelError(
                "task.pairs=apart: with task.scores=given or task.head=count a text's pooled vector is the scores, but "
                "a pair has two such vectors; use task.pairs=joined"
            )

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the labels of the training set.

        Raises:
            HydromelError: rows without a label or with several, if each must have one; no label that is not ignored.
        """
        if self.many and "labels" not in next(iter(train)).column_names:
            log.warning(
                "warning: task.labels=many, but the data set has one label per row (dataset.label_separator splits a "
                "column)"
            )
        return target_vocab(map(self._labels, train), self.ignore, "label")

    def with_unseen(self, targets: Vocab, tables: Iterable[pa.Table]) -> Vocab:
        """Return the labels with those of all splits as `extra`, or unchanged if `strict`."""
        if self.strict:
            return targets
        return targets.with_extra(unseen_labels(map(self._labels, tables), targets, self.ignore))

    def _labels(self, table: pa.Table) -> pa.Array:
        """Return the labels of all rows, (N,)."""
        return label_lists(table, self.name).flatten() if self.many else labels_of_rows(table, self.name)

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return the split as a batch, with a target of (B,) label ids, or of (B, K) for many labels (`label_set_ids`).

        Rows whose only label is ignored are left out.

        Raises:
            HydromelError: a label that is not in the vocabulary.
        """
        rows, vocab = np.arange(table.num_rows), vocabs["target"]
        if not self.many:
            labels = labels_of_rows(table, self.name)
            ids = label_ids(labels, vocab, self.ignore, lambda row: place(table, row), "label")
            split = Batch(features, torch.from_numpy(ids), rows)
            kept = np.flatnonzero(ids != IGNORED)
            return split if len(kept) == len(ids) else replace(split.select(kept), left_out=len(ids) - len(kept))
        lists = label_lists(table, self.name)
        offsets = offsets_of(lists)

        def at(number: int) -> str:  # in the last row that starts at or before it
            return place(table, int(offsets.searchsorted(number, side="right")) - 1)

        ids = label_ids(lists.flatten(), vocab, self.ignore, at, "label")
        return Batch(features, label_set_ids(ids, offsets), rows, left_out=int((ids == IGNORED).sum()))

    def count(self, batch: Batch) -> int:
        return len(batch.index)

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> PooledHead:
        """Return a head for vectors of the encoder's output size.

        Raises:
            HydromelError: with scores=given, a vector size other than the number of labels; or a weight for an
                unknown label.
        """
        labels = vocabs["target"].learned
        pool, size = pool_of(self.pooling, encoder.output_size, self.pairs == "apart")
        hidden = Mlp(size, self.hidden, self.dropout)
        linear = scorer(self.given, hidden.output_size, len(labels), self.output_kind)
        output = self._output(labels, self.label_weights)
        return PooledHead(pool, hidden, linear, output)

    def _output(self, labels: Vocab, given: LabelWeights | None) -> Output:
        """Return the loss and predictions defined on the scores of `labels`, with the weights `given` for some."""
        if self.many:
            kind: SetOutputKind = "hinge" if self.output_kind == "hinge" else "sigmoid"
            weights = None if given is None else label_weights(given, labels)
            return LabelSetOutput(kind, len(labels), self.threshold, self.smoothing, weights)
        assert self.output_kind != "sigmoid"
        return weighted(output_of(self.output_kind, self.smoothing), given, labels)

    def inspector(self, vocabs: Mapping[str, Vocab], head: Head) -> LabelInspector | LabelSetInspector:
        labels = vocabs["target"].tokens
        if not self.many:
            return LabelInspector(labels)
        assert isinstance(head, PooledHead)
        assert isinstance(head.output, LabelSetOutput)
        return LabelSetInspector(labels, head.output.thresholds.double().cpu().numpy())

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the most frequent label of the training set, or those of most rows, for every row of `test`."""
        majority = frequent_labels if self.many else majority_ids
        return majority(train, test, vocabs["target"].known)

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor | str]]:
        """Yield the predictions of a linear SVM over the unigrams and bigrams of the first feature (of both texts)."""
        words = vocabs[next(iter(train.features))]
        svm = svm_sets if self.many else linear_svm
        yield "svm", svm(train, test, words, vocabs["target"].known, self.pairs == "joined")
