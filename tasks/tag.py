"""Tagging: one tag for each token, plain or forming spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from runner.batch import Batch
from runner.errors import HydromelError
from runner.layers.dropout import Dropout
from runner.ragged import IntArray, Ragged
from runner.task import Encoder, Loss
from runner.types import Fraction
from runner.vocab import Vocab
from tasks.answers import (
    answer_ids,
    answer_rows,
    column,
    cross_entropies,
    majority_scores,
    place,
    require_tokens,
    softmax,
    summed_cross_entropy,
    token_vectors,
)
from tasks.metrics import LabelMetric, SpanMetric
from tasks.predictions import TagInspector
from tasks.span_schemes import Conversion
from tasks.spans import Scheme, SpanTags, all_tags, as_scheme


class Tag:
    """One tag for each token, from the column `tags`.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared; null: `f1` of spans where tags form them, else `accuracy`.
        span_scheme: how tags form spans (IOB1, IOB2, IOBES), or null for plain tags, such as parts of speech.
        train_scheme: the scheme of the tags that are learned and predicted (null: `span_scheme`). Predictions are
            converted to `span_scheme` before they are measured or written, so figures compare whatever was learned.
        dropout: probability, on the encoder's output.

    Raises:
        HydromelError: an unknown scheme, a train_scheme for plain tags, or a quality that such tags do not have.

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
        dropout: Fraction,
    ) -> None:
        self.name = name
        self.scheme = None if span_scheme is None else as_scheme(span_scheme)
        if train_scheme is not None and self.scheme is None:
            raise HydromelError(f"task.train_scheme={train_scheme} needs spans, but task.span_scheme=null: plain tags")
        self.learned_scheme = train_scheme or self.scheme
        self.dropout = dropout
        possible = ("accuracy", "macro_f1") if self.scheme is None else ("f1", "accuracy")
        self.quality: str = quality or possible[0]
        if self.quality not in possible:
            scheme = self.scheme or "null"
            raise HydromelError(f"task.quality={quality}; with task.span_scheme={scheme} use {' or '.join(possible)}")

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        """Train's tags; with a scheme also every other prefix of the types seen, which valid or test may have.

        Raises:
            HydromelError: tags that should form spans, none of which does; malformed ones that are to be converted.
        """
        plain = Vocab.labels(_flat(column(train, "tags", self.name))[0])
        if self.scheme is None:
            return plain
        types = SpanTags.of(plain.tokens).types
        if not types:
            raise HydromelError(
                f"task.span_scheme={self.scheme}: no tag of train is a span's ({', '.join(plain.tokens[:5])}, ...); "
                "use task.span_scheme=null for plain tags"
            )
        # dict.fromkeys: malformed tags that the reader was told to keep come last
        own = tuple(dict.fromkeys([*all_tags(types, self.scheme), *plain.tokens]))
        if self.learned_scheme in (None, self.scheme):
            return Vocab(own, unk=None)
        if malformed := own[len(all_tags(types, self.scheme)) :]:
            raise HydromelError(
                f"task.train_scheme={self.learned_scheme}: '{malformed[0]}' of train is no tag of {self.scheme}, so it "
                "cannot be converted; use task.train_scheme=null"
            )
        return Vocab(tuple(all_tags(types, self.learned_scheme)), unk=None)

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

        def at(token: int) -> str:
            row = int(np.searchsorted(offsets, token, side="right")) - 1
            return f"{place(table, row)}, token {token - offsets[row] + 1}"

        own = Vocab(self.own_tags(vocabs["target"]), unk=None)
        target = answer_ids(tags, own, at, "tag")
        if self.learned_scheme is not None and self.learned_scheme != self.scheme:
            target = torch.from_numpy(Conversion.of(own.tokens, self.learned_scheme)(target.numpy(), offsets))
        return Batch(features, Ragged(target.to(rows.device), rows, "packed"), np.arange(rows.n_rows))

    def count(self, batch: Batch) -> int:
        return answer_rows(batch).n_tokens

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> TagHead:
        """Scores of every tag.

        Raises:
            HydromelError: an encoder of one vector a row.
        """
        require_tokens(encoder, self.name)
        return TagHead(encoder.output_size, len(vocabs["target"]), self.dropout)

    def metric(self, vocabs: Mapping[str, Vocab]) -> LabelMetric | SpanMetric:
        tags = self.own_tags(vocabs["target"])
        if self.scheme is None:
            return LabelMetric(labels=tags)
        return SpanMetric(tags=tags, scheme=self.scheme, to_own=self.to_own(vocabs["target"]))

    def inspector(self, vocabs: Mapping[str, Vocab]) -> TagInspector:
        return TagInspector(self.own_tags(vocabs["target"]), self.scheme, self.to_own(vocabs["target"]))

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metrics on `test` of always answering train's most frequent tag."""
        metric = self.metric(vocabs)
        metric.update(majority_scores(train, test, len(vocabs["target"])), test)
        return metric.compute()


class TagHead(nn.Module):
    """Drop out, score: token vectors (D) -> (N, C) for the real tokens alone."""

    def __init__(self, input_size: int, n_tags: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(input_size, n_tags)

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        vectors = self.dropout(token_vectors(encoded, batch), answer_rows(batch), "packed")
        scores: Tensor = self.linear(vectors)
        return scores

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        return summed_cross_entropy(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return cross_entropies(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return scores.argmax(dim=1)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return softmax(scores)


def _flat(tags: pa.ListArray) -> tuple[pa.Array, IntArray]:
    """(N,) the tags of all rows, and (B+1,) where rows begin."""
    offsets: IntArray = tags.offsets.to_numpy().astype(np.int64)
    return pc.list_flatten(tags), offsets - offsets[0]
