"""Language modelling: predicting the next token at each token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError, unknown
from runner.common.types import Fraction, Name, NonNegativeFloat, PositiveFloat, PositiveInt
from runner.interfaces import Encoder, HasOutputLayer
from runner.layers.chunked_softmax import Precision
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.vocab import Vocab
from tasks.baselines.baselines import kneser_ney
from tasks.heads.language_model import AdaptiveVocabulary, LmHead, PretrainedVocabulary, SoftmaxVocabulary
from tasks.metrics.metrics import PerplexityMetric
from tasks.metrics.tables import by_frequency, by_position
from tasks.targets import require_tokens, target_ids, target_rows


@dataclass(kw_only=True, eq=False)
class Lm:
    """The task of predicting the next token. A row ends with the token `<eos>`, which also starts the next row.

    Args:
        name: the task's name in messages and records.
        quality: the metric used to compare runs; both choices are monotone functions of the nll.
        unit: `line`: rows are independent, and each starts from `<eos>`. `stream`: the split is one row, its text in
            order, for batching=stream.
        feature: the feature that is predicted; its vocabulary is the target vocabulary.
        tie_weights: use the embedding's vectors as output weights (Press and Wolf 2017), or its own output layer if
            it has one (`runner.interfaces.HasOutputLayer`).
        init_range: r: output weights are initialised uniformly in [-r, r] and biases to 0; null: torch's
            initialisation of a linear layer. Not for tied weights, which the embedding initialises.
        cutoffs: first id of each cluster of rare strings in an adaptive softmax; null: one full softmax.
        chunk_scores: number of scores (tokens times vocabulary) held in memory at once.
        precision: precision of those scores: that of the vectors (`same`), or bfloat16 for the scores only.
        dropout: dropout probability on the encoder's output.
        locked_dropout: dropout probability with one mask for all tokens of a row.
        activation_penalty, change_penalty: weights of the AR and TAR penalties (`LmHead`).

    Raises:
        HydromelError: an adaptive softmax with tied weights or another precision, or `init_range` without one softmax
            that has its own weights.
    """

    name: Name
    quality: Literal["perplexity", "nll"]
    unit: Literal["line", "stream"]
    feature: Name
    tie_weights: bool
    init_range: PositiveFloat | None
    cutoffs: list[PositiveInt] | None
    chunk_scores: PositiveInt
    precision: Precision
    dropout: Fraction
    locked_dropout: Fraction
    activation_penalty: NonNegativeFloat
    change_penalty: NonNegativeFloat
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.carries_state = self.unit == "stream"
        self.metric, self.main_metric = PerplexityMetric(feature=self.feature, stream=self.carries_state), self.quality
        if self.cutoffs is not None and (self.tie_weights or self.precision != "same"):
            raise HydromelError(
                f"task.cutoffs={self.cutoffs}: an adaptive softmax has its own weights and precision; "
                "use it with task.tie_weights=false and task.precision=same"
            )
        if self.init_range is not None and (self.tie_weights or self.cutoffs is not None):
            raise HydromelError(
                f"task.init_range={self.init_range} initialises a full softmax with its own weights; use "
                "task.init_range=null (for tied weights set embedding.init_range)"
            )

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the vocabulary of the predicted feature.

        Raises:
            HydromelError: no feature of that name.
        """
        if self.feature not in vocabs:
            raise unknown("feature", self.feature, set(vocabs) - {"target"}, "task.feature")
        return vocabs[self.feature]

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return inputs and next tokens: a row of n tokens t1..tn becomes `<eos>` t1..tn -> t1..tn `<eos>`.

        Every token and every row end is predicted exactly once, and a blank line is a row of length 1. The concatenated
        rows are also the inputs and next tokens of the stream, so `unit=stream` uses the same values as a single row.

        Raises:
            HydromelError: a predicted feature with words from outside the training set.
        """
        if vocabs[self.feature].extra:
            raise HydromelError(
                f"features.{self.feature}.extend=true: task=lm predicts only words of the training set; use "
                f"features.{self.feature}.extend=false"
            )
        rows = next(iter(features.values())).rows
        lengths = rows.host_lengths + 1
        rows_with_ends = Rows(lengths if self.unit == "line" else lengths.sum(keepdims=True), rows.device)
        # Each row gains one token, so the tokens of row r (from 0) move right by r places. This leaves a free slot
        # after every row; shifted by one more, the free slot is in front of every row.
        slots = torch.arange(rows.n_tokens, device=rows.device) + rows.row

        def with_ends(feature: Ragged, end: int, slots: Tensor) -> Ragged:
            values = feature.values.new_full((rows_with_ends.n_tokens,), end)
            return Ragged(values.index_copy_(0, slots, feature.values), rows_with_ends, "packed")

        inputs = {name: with_ends(feature, vocabs[name].eos, slots + 1) for name, feature in features.items()}
        target = with_ends(features[self.feature], vocabs["target"].eos, slots)
        return Batch(inputs, target.map(Tensor.long), np.arange(rows_with_ends.n_rows))

    def count(self, batch: Batch) -> int:
        return target_rows(batch).n_tokens

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> LmHead:
        """Return a head over the whole vocabulary, with its own weights or the embedding's.

        Raises:
            HydromelError: an encoder with one vector per row, or tied weights of the wrong size.
        """
        require_tokens(encoder, self.name)
        output = self._output(encoder, vocabs["target"], embedding)
        return LmHead(self.dropout, self.locked_dropout, output, self.activation_penalty, self.change_penalty)

    def _output(
        self, encoder: Encoder, vocab: Vocab, embedding: nn.Module
    ) -> SoftmaxVocabulary | PretrainedVocabulary | AdaptiveVocabulary:
        size = encoder.output_size
        if isinstance(embedding, HasOutputLayer):
            layer = embedding.output_layer()
            if not self.tie_weights:
                raise HydromelError(
                    "task.tie_weights=false, but the embedding is a language model with its own output layer; use "
                    "task.tie_weights=true"
                )
            if size != layer.weight.shape[1]:
                raise HydromelError(
                    f"the embedding is a language model whose output layer reads vectors of size "
                    f"{layer.weight.shape[1]}, but the encoder's have {size}; use encoder=none"
                )
            return PretrainedVocabulary(layer, self.chunk_scores, self.precision)
        if self.cutoffs is None:
            tied = _tied_weight(size, len(vocab), embedding) if self.tie_weights else None
            output = SoftmaxVocabulary(size, vocab, tied, self.chunk_scores, self.precision)
            return output if self.init_range is None else output.initialized_uniformly(self.init_range)
        try:
            return AdaptiveVocabulary(size, vocab, [*self.cutoffs])
        except ValueError as error:
            raise HydromelError(f"task.cutoffs={self.cutoffs}: {error}") from error

    def loss_tables(
        self, losses: npt.NDArray[np.float64], split: Batch, train: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, object]:
        """Return perplexities by position in a line and by frequency in the training set, from each token's nats (N,).

        See `tasks.metrics.tables`.
        """
        vocab = vocabs["target"]
        counts = np.bincount(target_ids(train).numpy(), minlength=len(vocab))
        starts_line = split.features[self.feature].tokens().numpy() == vocabs[self.feature].eos
        special_ids = {vocab.tokens[token]: token for token in (vocab.unk, vocab.eos) if token is not None}
        return {
            "by_position": by_position(losses, starts_line),
            "by_frequency": by_frequency(losses, target_ids(split).numpy(), counts, special_ids),
        }

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the nats (N,) of `test` by a unigram model: token frequencies of the training set.

        `<unk>` counts as seen at least once, since a single unknown token of `test` would make the loss infinite. The
        vocabulary of a pretrained model has more tokens that the training set lacks; together they count as often as
        all those that it has once (Good 1953), in equal shares.
        """
        vocab = vocabs["target"]
        counts = torch.bincount(target_ids(train), minlength=len(vocab)).double()
        if vocab.unk is not None:
            counts[vocab.unk].clamp_(min=1)
        unseen = counts == 0
        if vocab.pad is not None:
            unseen[vocab.pad] = False
        counts[unseen] = (counts == 1).sum().clamp(min=1) / unseen.sum()
        return (counts.sum().log() - counts.log()).index_select(0, target_ids(test))

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor | str]]:
        """Yield the nats by a 5-gram model with Kneser-Ney smoothing, then with a cache of recent tokens."""
        return kneser_ney(train, test, self.feature, vocabs["target"])


def _tied_weight(input_size: int, n_tokens: int, embedding: nn.Module) -> nn.Parameter:
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.shape[0] != n_tokens:
        raise HydromelError(
            "task.tie_weights=true needs embedding=word over the predicted feature (task.feature); "
            "use that embedding or task.tie_weights=false"
        )
    if weight.shape[1] != input_size:
        raise HydromelError(
            f"task.tie_weights=true: embedding.size={weight.shape[1]}, but the encoder's output size is {input_size}; "
            "make them equal or use task.tie_weights=false"
        )
    return weight
