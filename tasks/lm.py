"""Language modelling: at each token, what the next one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError, unknown
from runner.common.types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from runner.inference.outcomes import Outcomes
from runner.interfaces import Encoder
from runner.layers.chunked_softmax import Precision
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.vocab import EOS, PAD, UNK, Vocab
from tasks.baselines.baselines import kneser_ney
from tasks.heads.language_model import AdaptiveVocabulary, LmHead, SoftmaxVocabulary
from tasks.metrics.example_scores import blocks, of_losses
from tasks.metrics.likelihood import by_frequency, by_position
from tasks.metrics.metrics import PerplexityMetric, PieceCounts
from tasks.targets import answer_rows, answers, require_tokens


class Lm:
    """The next token at each token; a row's end is the token `<eos>`, which begins the next row's context too.

    Args:
        name: for messages and records.
        quality: the metric by which runs are compared: a monotone function of nll either way.
        unit: `line`: rows are independent, and each begins from `<eos>`. `stream`: the split is one row, its text in
            order, for batching=stream.
        feature: which feature is predicted; its vocabulary is that of the answers.
        tie_weights: score with the embedding's own vectors (Press and Wolf 2017).
        init_range: r: weights of its own are drawn evenly from -r to r at first, and biases are 0; None: as torch draws
            those of a linear layer. Tied weights are the embedding's.
        cutoffs: ids from which on strings count as rare, in clusters of an adaptive softmax; null: one full softmax.
        chunk_scores: how many scores, tokens times vocabulary, are in memory at once.
        precision: of those scores: that of the vectors (`same`), or bfloat16, while the rest stays as it is.
        dropout: probability, on the encoder's output.
        locked_dropout: the same, at all tokens of a row alike.
        activation_penalty, change_penalty: of large outputs, and of ones that change (`LmHead`).

    Raises:
        HydromelError: an adaptive softmax with tied weights, or in another precision; a range for weights not its own.
    """

    causal: bool = True

    def __init__(
        self,
        *,
        name: str,
        quality: Literal["perplexity", "nll"],
        unit: Literal["line", "stream"],
        feature: str,
        tie_weights: bool,
        init_range: PositiveFloat | None,
        cutoffs: list[PositiveInt] | None,
        chunk_scores: PositiveInt,
        precision: Precision,
        dropout: Fraction,
        locked_dropout: Fraction,
        activation_penalty: NonNegativeFloat,
        change_penalty: NonNegativeFloat,
    ) -> None:
        self.name = name
        self.quality: str = quality
        self.unit = unit
        self.feature = feature
        self.tie_weights, self.init_range = tie_weights, init_range
        self.cutoffs, self.chunk_scores, self.precision = cutoffs, chunk_scores, precision
        self.dropout, self.locked_dropout = dropout, locked_dropout
        self.activation_penalty, self.change_penalty = activation_penalty, change_penalty
        if cutoffs is not None and (tie_weights or precision != "same"):
            raise HydromelError(
                f"task.cutoffs={cutoffs}: an adaptive softmax has weights and a precision of its own; "
                "use task.tie_weights=false and task.precision=same with it"
            )
        if init_range is not None and (tie_weights or cutoffs is not None):
            raise HydromelError(
                f"task.init_range={init_range}: it is for one softmax with weights of its own; use "
                "task.init_range=null (embedding.init_range is for tied weights)"
            )

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        """The predicted feature's own.

        Raises:
            HydromelError: no feature of that name.
        """
        if self.feature not in vocabs:
            raise unknown("feature", self.feature, set(vocabs) - {"target"}, "task.feature")
        return vocabs[self.feature]

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Inputs and what follows each of them: a row of n tokens t1..tn becomes `<eos>` t1..tn -> t1..tn `<eos>`.

        So every token, and every row's end, is predicted once, and a blank line is a row of length 1. One after another
        these rows are also the stream and its next tokens; it is the same values as one row.
        """
        if vocabs[self.feature].extra:
            raise HydromelError(
                f"features.{self.feature}.extend=true: task=lm predicts words of train alone; use extend=false"
            )
        rows = next(iter(features.values())).rows
        lengths = rows.host_lengths + 1
        wide = Rows(lengths if self.unit == "line" else lengths.sum(keepdims=True), rows.device)
        # tokens in front of which so many rows have begun move on by as many places
        slots = torch.arange(rows.n_tokens, device=rows.device) + rows.row

        def with_ends(feature: Ragged, end: int, slots: Tensor) -> Ragged:
            values = feature.values.new_full((wide.n_tokens,), end)
            return Ragged(values.index_copy_(0, slots, feature.values), wide, "packed")

        inputs = {name: with_ends(feature, vocabs[name].ids[EOS], slots + 1) for name, feature in features.items()}
        target = with_ends(features[self.feature], vocabs["target"].ids[EOS], slots)
        return Batch(inputs, target.map(Tensor.long), np.arange(wide.n_rows))

    def count(self, batch: Batch) -> int:
        return answer_rows(batch).n_tokens

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> LmHead:
        """Scores of every string of the vocabulary, by weights of its own or by the embedding's.

        Raises:
            HydromelError: an encoder of one vector a row, or weights to be tied that do not fit.
        """
        require_tokens(encoder, self.name)
        size = encoder.output_size
        return LmHead(
            self.dropout,
            self.locked_dropout,
            self._output(size, vocabs["target"], embedding),
            self.activation_penalty,
            self.change_penalty,
        )

    def _output(self, size: int, vocab: Vocab, embedding: nn.Module) -> SoftmaxVocabulary | AdaptiveVocabulary:
        if self.cutoffs is None:
            tied = _tied_weight(size, len(vocab), embedding) if self.tie_weights else None
            output = SoftmaxVocabulary(size, vocab, tied, self.chunk_scores, self.precision)
            return output if self.init_range is None else output.drawn(self.init_range)
        try:
            return AdaptiveVocabulary(size, vocab, [*self.cutoffs])
        except ValueError as error:
            raise HydromelError(f"task.cutoffs={self.cutoffs}: {error}") from error

    def metric(self, vocabs: Mapping[str, Vocab]) -> PerplexityMetric:
        """Bits per character too, where every string of the vocabulary is one character (`<eos>` is the line end), and
        perplexity of words where tokens are pieces of them.
        """
        if vocabs["target"].merges is not None:
            return PerplexityMetric(per_character=False, pieces=PieceCounts(self.feature, vocabs["target"]))
        strings = set(vocabs["target"].tokens) - {PAD, UNK, EOS}
        return PerplexityMetric(per_character=all(len(string) == 1 for string in strings))

    def inspector(self, vocabs: Mapping[str, Vocab]) -> None:
        """Nothing: a probability of each word says more than the likeliest word."""

    def loss_tables(
        self, losses: npt.NDArray[np.float64], split: Batch, train: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, Any]:
        """By position in a line and by frequency in train (`tasks.metrics.likelihood`), from each token's nats (N,)."""
        vocab = vocabs["target"]
        counts = np.bincount(answers(train).numpy(), minlength=len(vocab))
        begins = split.features[self.feature].tokens().numpy() == vocabs[self.feature].ids[EOS]
        apart = {vocab.tokens[one]: one for one in (vocab.unk, vocab.ids[EOS]) if one is not None}
        return {
            "by_position": by_position(losses, begins),
            "by_frequency": by_frequency(losses, answers(split).numpy(), counts, apart),
        }

    def outcomes(self, said: npt.NDArray[np.float64], split: Batch, vocabs: Mapping[str, Vocab]) -> Outcomes:
        """`nats` and `tokens` of each line, or of `blocks` of a stream."""
        lengths = answer_rows(split).host_lengths
        return of_losses(said, lengths if self.unit == "line" else blocks(int(lengths.sum())))

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metrics on `test` of train's token frequencies (a unigram model), not smoothed.

        `<unk>` counts as seen once where train has none, lest one unknown token of test make all infinite.
        """
        vocab = vocabs["target"]
        counts = torch.bincount(answers(train), minlength=len(vocab)).double()
        if vocab.unk is not None:
            counts[vocab.unk].clamp_(min=1)
        metric = self.metric(vocabs)
        metric.update((counts.sum().log() - counts.log()).index_select(0, answers(test)), test)
        return metric.compute()

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, dict[str, float]]:
        """5-grams with Kneser-Ney smoothing, and the same with a cache of recent tokens."""
        return kneser_ney(train, test, self.feature, vocabs["target"], lambda: self.metric(vocabs))


def _tied_weight(input_size: int, n_tokens: int, embedding: nn.Module) -> nn.Parameter:
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.shape[0] != n_tokens:
        raise HydromelError("task.tie_weights=true needs embedding=word over the predicted feature (task.feature)")
    if weight.shape[1] != input_size:
        raise HydromelError(
            f"task.tie_weights=true: embedding.size={weight.shape[1]}, but the encoder gives {input_size}; "
            "make them equal or use task.tie_weights=false"
        )
    return weight
