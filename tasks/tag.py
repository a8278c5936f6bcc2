"""Tagging: one tag for each token, plain or forming spans."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import Fraction
from runner.inference.outcomes import Outcomes
from runner.interfaces import Encoder
from runner.layers.crf.chain import Allowed
from runner.layers.crf.crf import Constrain
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.baselines.baselines import figures, most_frequent
from tasks.heads.label_weights import LabelWeights, weighted
from tasks.heads.outputs import OUTPUTS, Output, output_of, scorer
from tasks.heads.tagger import CrfOutput, HeadKind, SoftmaxOutput, TagHead
from tasks.metrics.metrics import LabelMetric, SpanMetric
from tasks.predictions.inspectors import TagInspector
from tasks.spans.constraints import allowed_by
from tasks.spans.schemes import Conversion
from tasks.spans.tags import Scheme, SpanTags, all_tags, as_scheme, illegal
from tasks.targets import answer_ids, answer_rows, column, majority_answers, place, require_tokens


class Tag:
    """One tag for each token, from the column `tags`.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared; null: `f1` of spans where tags form them, else `accuracy`.
        span_scheme: how tags form spans (IOB1, IOB2, IOBES), or null for plain tags, such as parts of speech.
        train_scheme: the scheme of the tags that are learned and predicted (null: `span_scheme`). Predictions are
            converted to `span_scheme` before they are measured or written, so figures compare whatever was learned.
        head: softmax (each token by itself), crf (all tags of a row at once), or count (frequencies, learned in one
            step from scores that the encoder gives).
        constraints: where tags that the scheme does not let follow one another are forbidden: in decoding, in a crf's
            training, in both, or nowhere.
        dropout: probability, on the encoder's output.
        label_smoothing: share of a softmax' target that all tags have in common (Szegedy et al. 2016), 0 to below 1.
        label_weights: what a token weighs in a softmax' training by its (learned) tag (`tasks.heads.label_weights`);
            null: 1.

    Raises:
        HydromelError: an unknown scheme, a train_scheme or constraints for plain tags, constraints on the training of a
            softmax, smoothing or weights without one, or a quality that such tags do not have.

    Attributes:
        scheme: of the data set's tags.
        learned_scheme: of the target vocabulary's tags.
    """

    causal: bool = False

    def __init__(
        self,
        *,
        name: str,
        quality: Literal["accuracy", "macro_f1", "f1"] | None,
        span_scheme: str | None,
        train_scheme: Scheme | None,
        head: HeadKind,
        constraints: Constrain,
        dropout: Fraction,
        label_smoothing: Fraction,
        label_weights: LabelWeights | None,
    ) -> None:
        self.name = name
        self.scheme = None if span_scheme is None else as_scheme(span_scheme)
        if train_scheme is not None and self.scheme is None:
            raise HydromelError(f"task.train_scheme={train_scheme} needs spans, but task.span_scheme=null: plain tags")
        self.learned_scheme = train_scheme or self.scheme
        self.head_kind, self.constraints = head, constraints
        if constraints != "none" and self.scheme is None:
            raise HydromelError(f"task.constraints={constraints} needs spans, but task.span_scheme=null: plain tags")
        if constraints in ("train", "both") and head == "softmax":
            raise HydromelError(
                f"task.constraints={constraints}: training a softmax has no transitions to constrain; use decode or "
                "none, or task.head=crf"
            )
        if constraints != "none" and head == "count":
            raise HydromelError(f"task.constraints={constraints}: counts have no transitions to constrain; use none")
        if head != "softmax" and (label_smoothing or label_weights is not None):
            raise HydromelError(
                f"task.head={head} has neither label_smoothing nor label_weights; use 0.0 and null, or a softmax"
            )
        self.softmax = output_of("softmax", label_smoothing)
        self.label_weights, self.dropout = label_weights, dropout
        possible = ("accuracy", "macro_f1") if self.scheme is None else ("f1", "accuracy")
        self.quality: str = quality or possible[0]
        if self.quality not in possible:
            scheme = self.scheme or "null"
            raise HydromelError(f"task.quality={quality}; with task.span_scheme={scheme} use {' or '.join(possible)}")

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        """Train's tags; with a scheme also every other prefix of the types seen, which valid or test may have.

        Raises:
            HydromelError: pieces of words; tags that should form spans, none of which does; malformed ones that are to
                be converted; illegal ones, where training is constrained.
        """
        for name, vocab in vocabs.items():
            if vocab.merges is not None:
                raise HydromelError(
                    f"task={self.name} answers each word, and features.{name} has pieces of words; use features=words"
                )
        tags, offsets = _flat(column(train, "tags", self.name))
        plain = Vocab.labels(tags)
        if self.scheme is None:
            return plain
        types = SpanTags.of(plain.tokens).types
        if not types:
            raise HydromelError(
                f"task.span_scheme={self.scheme}: no tag of train is a span's ({', '.join(plain.tokens[:5])}, ...); "
                "use task.span_scheme=null for plain tags"
            )
        # dict.fromkeys: malformed tags that the reader was told to keep come last
        own = Vocab(tuple(dict.fromkeys([*all_tags(types, self.scheme), *plain.tokens])), unk=None)
        ids = own.encode(tags)
        if self.learned_scheme in (None, self.scheme):
            if self.constraints in ("train", "both"):
                self._require_legal(train, tags, offsets, self.scheme)
            return own.counted(ids)
        if malformed := own.tokens[len(all_tags(types, self.scheme)) :]:
            raise HydromelError(
                f"task.train_scheme={self.learned_scheme}: '{malformed[0]}' of train is no tag of {self.scheme}, so it "
                "cannot be converted; use task.train_scheme=null"
            )
        learned = Vocab(tuple(all_tags(types, self.learned_scheme)), unk=None)
        return learned.counted(Conversion.of(own.tokens, self.learned_scheme)(ids, offsets))

    def _require_legal(self, train: pa.Table, tags: pa.Array, offsets: IntArray, scheme: Scheme) -> None:
        wrong = illegal(tags, offsets, scheme)
        if len(wrong):
            first = int(wrong[0])
            raise HydromelError(
                f"{_at(train, offsets, first)}: '{tags[first].as_py()}' may not stand there in {scheme}; a crf whose "
                "training is constrained gives it no probability: use task.constraints=decode or none"
            )

    def own_tags(self, learned: Vocab) -> tuple[str, ...]:
        """The data set's tags, from those that are learned."""
        if self.scheme is None or self.learned_scheme == self.scheme:
            return learned.tokens
        return tuple(all_tags(SpanTags.of(learned.tokens).types, self.scheme))

    def to_own(self, learned: Vocab) -> Conversion | None:
        """From learned tags to the data set's; None where they are the same."""
        if self.scheme is None or self.learned_scheme == self.scheme:
            return None
        return Conversion.of(learned.tokens, self.scheme)

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """The split, with a packed target of (N,) ids, of learned tags, over the features' own rows.

        Raises:
            HydromelError: a tag that train lacks, or a row with more or fewer tags than tokens.
        """
        tags, offsets = _flat(column(table, "tags", self.name))
        rows = next(iter(features.values())).rows
        uneven = np.flatnonzero(np.diff(offsets) != rows.host_lengths)
        if len(uneven):
            row = int(uneven[0])
            n_tags, n_tokens = offsets[row + 1] - offsets[row], rows.host_lengths[row]
            raise HydromelError(f"{place(table, row)}: {n_tags} tags for {n_tokens} tokens")

        own = Vocab(self.own_tags(vocabs["target"]), unk=None)
        target = answer_ids(tags, own, partial(_at, table, offsets), "tag")
        if self.learned_scheme is not None and self.learned_scheme != self.scheme:
            target = torch.from_numpy(Conversion.of(own.tokens, self.learned_scheme)(target.numpy(), offsets))
        return Batch(features, Ragged(target.to(rows.device), rows, "packed"), np.arange(rows.n_rows))

    def count(self, batch: Batch) -> int:
        return answer_rows(batch).n_tokens

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> TagHead:
        """Scores of every tag.

        Raises:
            HydromelError: an encoder of one vector a row, or of vectors that cannot be counts, or a weight for no tag.
        """
        require_tokens(encoder, self.name)
        tags = vocabs["target"].tokens
        scheme = self.learned_scheme
        allowed = Allowed.everything(len(tags)) if scheme is None else allowed_by(scheme, tags)
        output: Output | SoftmaxOutput | CrfOutput
        if self.head_kind == "crf":
            output = CrfOutput(len(tags), allowed, self.constraints)
        elif self.head_kind == "count":
            output = OUTPUTS["count"]
        else:
            softmax = weighted(self.softmax, self.label_weights, vocabs["target"])
            output = SoftmaxOutput(softmax, allowed, self.constraints == "decode")
        linear = scorer(self.head_kind == "count", encoder.output_size, len(tags), "count")
        return TagHead(self.dropout, linear, output)

    def metric(self, vocabs: Mapping[str, Vocab]) -> LabelMetric | SpanMetric:
        tags = self.own_tags(vocabs["target"])
        if self.scheme is None:
            return LabelMetric(labels=tags)
        return SpanMetric(tags=tags, scheme=self.scheme, to_own=self.to_own(vocabs["target"]))

    def inspector(self, vocabs: Mapping[str, Vocab]) -> TagInspector:
        return TagInspector(self.own_tags(vocabs["target"]), self.scheme, self.to_own(vocabs["target"]))

    def outcomes(self, said: IntArray, split: Batch, vocabs: Mapping[str, Vocab]) -> Outcomes | None:
        """Of each row `right`, `predicted` and `gold` spans, or `right` and `answers` for accuracy, in the data set's
        own tags; none of macro F1, which is no sum over rows.
        """
        if self.quality == "macro_f1":
            return None
        return self.inspector(vocabs).outcomes(said, split, by_span=self.quality == "f1")

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metrics on `test` of always answering train's most frequent tag."""
        metric = self.metric(vocabs)
        metric.update(majority_answers(train, test, len(vocabs["target"])), test)
        return metric.compute()

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, dict[str, float]]:
        """Each word's most frequent tag; words are the first feature."""
        words, n_tags = vocabs[next(iter(train.features))], len(vocabs["target"])
        answer = partial(most_frequent, train, test, words, n_tags)
        return {"most_frequent_tag": figures(self.metric(vocabs), test, answer)}


def _flat(tags: pa.ListArray) -> tuple[pa.Array, IntArray]:
    """(N,) the tags of all rows, and (B+1,) where rows begin."""
    offsets: IntArray = tags.offsets.to_numpy().astype(np.int64)
    return pc.list_flatten(tags), offsets - offsets[0]


def _at(table: pa.Table, offsets: IntArray, token: int) -> str:
    """Where the n-th token stands."""
    row = int(np.searchsorted(offsets, token, side="right")) - 1
    return f"{place(table, row)}, token {token - offsets[row] + 1}"
