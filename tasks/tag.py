"""Tagging: one tag per token, either plain tags or tags that encode spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import Fraction, Name, Text
from runner.interfaces import Encoder, Head
from runner.layers.crf.chain import AllowedTransitions
from runner.layers.crf.crf import Constrain
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.arrow import offsets_of, refuse
from runner.text.blocks import Mapped
from runner.text.vocab import Vocab
from tasks.baselines.baselines import majority_ids, most_frequent
from tasks.heads.outputs import OUTPUTS, LabelWeights, Output, output_of, scorer, weighted
from tasks.heads.tagger import ConstrainedOutput, CrfOutput, HeadKind, TagHead
from tasks.metrics.metrics import LabelMetric, SpanMetric
from tasks.predictions.inspectors import TagInspector
from tasks.spans.finding import Tagging, find_scheme
from tasks.spans.schemes import Conversion, OwnTags, allowed_by
from tasks.spans.table import AUTO, all_tags, as_scheme
from tasks.spans.tags import SpanTags
from tasks.targets import (
    column,
    label_ids,
    place,
    require_tokens,
    target_vocab,
    unseen_labels,
    without_ignored,
)


class Tag:
    """The task of predicting one tag per token, from the column `tags`.

    Args:
        name: the task's name in messages and records.
        quality: the metric used to compare runs; null: span `f1` if the tags encode spans, else `accuracy`.
        span_scheme: how tags encode spans (`tasks.spans.table`), or null for plain tags such as parts of speech; auto:
            worked out from the training set (`find_options`) before anything else is done.
        train_scheme: the scheme of the tags that the model learns and predicts (null: `span_scheme`). Predictions are
            converted to `span_scheme` before they are measured or written, so figures are comparable across schemes.
        head: softmax (each token independently), crf (all tags of a row jointly), or count (frequencies, learned in
            one step from scores computed by the encoder).
        constraints: where the transitions that the scheme forbids are excluded: decode, train (a CRF's training),
            both, or none.
        dropout: dropout probability on the encoder's output.
        label_smoothing: share of the softmax target spread evenly over all tags (Szegedy et al. 2016), 0 to below 1.
        label_weights: weight of each token in the softmax's training loss, by its tag in the learned scheme
            (`tasks.heads.outputs`); null: 1.
        ignore: values that are not tags: tokens with one of them are read, but left out of loss, metrics and counts.
        strict: refuse tags of valid and test that the training set lacks, instead of counting them as missed.

    Raises:
        HydromelError: an unknown scheme, a train_scheme or constraints for plain tags, training constraints with a
            softmax, smoothing or weights without a softmax, or a quality that does not apply to such tags.
    """

    causal: bool = False
    carries_state: bool = False

    def __init__(
        self,
        *,
        name: Name,
        quality: Literal["accuracy", "macro_f1", "f1"] | None,
        span_scheme: Text | None,
        train_scheme: Text | None,
        head: HeadKind,
        constraints: Constrain,
        dropout: Fraction,
        label_smoothing: Fraction,
        label_weights: LabelWeights | None,
        ignore: list[Text | int],
        strict: bool,
    ) -> None:
        self.name = name
        is_open = span_scheme == AUTO
        self.scheme = None if span_scheme is None or is_open else as_scheme(span_scheme)
        trained = None if train_scheme is None else as_scheme(train_scheme, "task.train_scheme")
        for option, value, off in (("train_scheme", train_scheme, "null"), ("constraints", constraints, "none")):
            if self.scheme is None and not is_open and value not in (None, "none"):
                raise HydromelError(
                    f"task.{option}={value} needs span tags, but task.span_scheme=null means plain tags; "
                    f"use task.{option}={off}"
                )
        self.learned_scheme = trained or self.scheme  # scheme of the tags in the target vocabulary
        self.head_kind, self.constraints = head, constraints
        if constraints in ("train", "both") and head == "softmax":
            raise HydromelError(
                f"task.constraints={constraints}: a softmax has no transitions to constrain in training; use "
                "task.constraints=decode or none, or task.head=crf"
            )
        if constraints != "none" and head == "count":
            raise HydromelError(
                f"task.constraints={constraints}: task.head=count has no transitions to constrain; "
                "use task.constraints=none"
            )
        if head != "softmax" and (label_smoothing or label_weights is not None):
            raise HydromelError(
                f"task.head={head} supports neither label_smoothing nor label_weights; use task.label_smoothing=0.0 "
                "and task.label_weights=null, or task.head=softmax"
            )
        self.softmax = output_of("softmax", label_smoothing)
        self.label_weights, self.dropout = label_weights, dropout
        self.ignore, self.strict = ignore, strict
        self.metric: LabelMetric | SpanMetric = LabelMetric()
        possible = ("accuracy", "macro_f1")
        if self.scheme is not None:
            self.metric = SpanMetric(scheme=self.scheme, learned_scheme=trained or self.scheme)
            possible = ("f1", "accuracy")
        self.main_metric = quality or possible[0]
        if self.main_metric not in possible and not is_open:
            scheme = self.scheme or "null"
            raise HydromelError(f"task.quality={quality}; with task.span_scheme={scheme} use {' or '.join(possible)}")

    def find_options(self, train: Iterable[pa.Table]) -> dict[str, object]:
        """Return the `span_scheme` of the training set's tags; errors are those of `find_scheme`."""
        return {"span_scheme": find_scheme(Mapped(self._tagging, train))}

    def _tagging(self, table: pa.Table) -> Tagging:
        """Return the tags of a table that are not ignored."""
        lists = column(table, "tags", self.name)
        counted, places = without_ignored(lists, self.ignore)

        def at(position: int) -> str:
            return _at(table, offsets_of(lists), int(places[position]))

        return Tagging.of(counted.flatten(), offsets_of(counted), at)

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the tags of the training set; with a scheme, also all other prefixes of the span types seen there.

        Valid and test may contain such prefixes even if the training set does not.

        Raises:
            HydromelError: subword tokens; no tag that is not ignored; a span scheme although no tag encodes a span;
                malformed tags that would have to be converted; illegal tags with constrained training.
        """
        for name, vocab in vocabs.items():
            if vocab.merges is not None or vocab.tokenizer is not None:
                raise HydromelError(
                    f"task={self.name} predicts one tag per word, but features.{name} splits words into pieces; "
                    "use features=words"
                )
        plain = target_vocab((column(block, "tags", self.name).flatten() for block in train), self.ignore, "tag")
        if self.scheme is None:
            return plain
        types = sorted(SpanTags.of(plain.tokens, self.scheme).types)
        if not types:
            raise HydromelError(
                f"task.span_scheme={self.scheme}: no tag of the training set encodes a span "
                f"({', '.join(plain.tokens[:5])}, ...); use task.span_scheme=null for plain tags"
            )
        # Legal tags come first, so everything after them is malformed (`dataset.strict_tags=false` keeps such tags).
        own = Vocab(tuple(dict.fromkeys([*all_tags(types, self.scheme), *plain.tokens])))
        taggings = Mapped(self._tagging, train)
        if self.learned_scheme is None or self.learned_scheme == self.scheme:
            for tagging in taggings if self.constraints in ("train", "both") else ():
                if len(illegal := tagging.illegal(self.scheme)):
                    first = int(illegal[0])
                    raise HydromelError(
                        f"{tagging.at(first)}: tag '{tagging.tags[first].as_py()}' is illegal here in {self.scheme}, "
                        "and a CRF with constrained training gives it probability 0; use task.constraints=decode or "
                        "none"
                    )
            return own.with_counts(own.encode(tagging.tags) for tagging in taggings)
        if malformed := own.tokens[len(all_tags(types, self.scheme)) :]:
            raise HydromelError(
                f"task.train_scheme={self.learned_scheme}: '{malformed[0]}' in the training set is not a tag of "
                f"{self.scheme}, so it cannot be converted; use task.train_scheme=null"
            )
        learned = Vocab(tuple(all_tags(types, self.learned_scheme)))
        convert = Conversion.of(own.tokens, self.scheme, self.learned_scheme)
        return learned.with_counts(convert(own.encode(tagging.tags), tagging.offsets) for tagging in taggings)

    def with_unseen(self, targets: Vocab, tables: Iterable[pa.Table]) -> Vocab:
        """Return the learned tags with those of all splits as `extra`, or unchanged if `strict`.

        If tags are converted, these are all tags of the span types that the training set lacks.
        """
        if self.strict:
            return targets
        own = Vocab(OwnTags.of(targets.tokens, self.learned_scheme, self.scheme).tags)
        new = unseen_labels((column(table, "tags", self.name).flatten() for table in tables), own, self.ignore)
        if self.scheme is None or self.learned_scheme is None:
            return targets.with_extra(new)
        before, after = (SpanTags.of(tags, self.scheme) for tags in (own.tokens, (*own.tokens, *new)))
        if not np.array_equal(before.prefix, after.prefix[: len(own)]):
            return targets  # a typed tag beside tags without types would change how all tags are parsed
        if self.learned_scheme != self.scheme:
            new = all_tags(sorted({*after.types} - {*before.types}), self.learned_scheme)[1:]
        return targets.with_extra(new)

    def own_tags(self, vocabs: Mapping[str, Vocab]) -> OwnTags:
        """Return the data set's tags, and the conversion of learned tags to them."""
        return OwnTags.of(vocabs["target"].tokens, self.learned_scheme, self.scheme)

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return the split as a batch, with a packed target of (N,) ids of learned tags over the features' rows.

        Raises:
            HydromelError: a tag that is not in the vocabulary, or a row with more or fewer tags than tokens.
        """
        lists = column(table, "tags", self.name)
        tags, offsets = lists.flatten(), offsets_of(lists)
        rows = next(iter(features.values())).rows
        n_tags, n_tokens = np.diff(offsets), rows.host_lengths
        refuse(n_tags != n_tokens, lambda row: f"{place(table, row)}: {n_tags[row]} tags for {n_tokens[row]} tokens")
        own = Vocab(self.own_tags(vocabs).tags)
        ids = label_ids(tags, own, self.ignore, partial(_at, table, offsets), "tag")
        if self.scheme is not None and self.learned_scheme is not None and self.learned_scheme != self.scheme:
            counted, places = without_ignored(lists, self.ignore)
            convert = Conversion.of(own.tokens, self.scheme, self.learned_scheme)
            ids[places] = convert(ids[places], offsets_of(counted))
        return Batch(features, Ragged(torch.from_numpy(ids).to(rows.device), rows, "packed"), np.arange(rows.n_rows))

    def count(self, batch: Batch) -> int:
        return batch.n_targets

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> TagHead:
        """Return a head that scores every tag for each token.

        Raises:
            HydromelError: an encoder with one vector per row; with head=count, a vector size other than the number of
                tags; or a weight for an unknown tag.
        """
        require_tokens(encoder, self.name)
        labels, scheme = vocabs["target"].learned, self.learned_scheme
        tags = labels.tokens
        output: Output = OUTPUTS["count"]
        if self.head_kind == "softmax":
            output = weighted(self.softmax, self.label_weights, labels)
        # Transitions are a table of all pairs of tags, too large for very many, so it is made only where it is used.
        if self.head_kind == "crf" or self.constraints == "decode":
            allowed = AllowedTransitions.allow_all(len(tags)) if scheme is None else allowed_by(scheme, tags)
            if self.head_kind == "crf":
                output = CrfOutput(len(tags), allowed, self.constraints)
            elif self.head_kind == "softmax":
                output = ConstrainedOutput(output, allowed)
        linear = scorer(self.head_kind == "count", encoder.output_size, len(tags), "count")
        return TagHead(self.dropout, linear, output)

    def inspector(self, vocabs: Mapping[str, Vocab], head: Head) -> TagInspector:
        return TagInspector(self.own_tags(vocabs), self.scheme)

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the most frequent tag of the training set, for every token of `test`."""
        return majority_ids(train, test, vocabs["target"].known)

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor]]:
        """Yield each word's most frequent tag; words are the first feature."""
        words = vocabs[next(iter(train.features))]
        yield "most_frequent_tag", most_frequent(train, test, words, vocabs["target"].known)


def _at(table: pa.Table, offsets: IntArray, token: int) -> str:
    """Return the position of the n-th token of a split, for messages."""
    row = int(np.searchsorted(offsets, token, side="right")) - 1
    return f"{place(table, row)}, token {token - offsets[row] + 1}"
