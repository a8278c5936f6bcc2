"""The head of a language model: vectors of tokens, and what the vocabulary's share of the next token is.

What it hands on as scores are vectors, (N, D), or (N, 2D) where what they were before dropout is penalised too: the
(N, V) scores of a batch are made chunk by chunk, where they are asked for, and never exist as a whole in training.

Shapes: N real tokens, D numbers a vector, V strings of the vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from runner.interfaces import Loss
from runner.layers.chunked_softmax import Precision, chunks_of, vocabulary_loss, vocabulary_nll, vocabulary_scores
from runner.layers.dropout import Dropout, LockedDropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, Vocab
from tasks.targets import answer_rows, answers, token_vectors


class VocabularyOutput(Protocol):
    """Probabilities of every string of the vocabulary, from vectors (N, D). `<pad>` has none."""

    def loss(self, vectors: Tensor, right: Tensor) -> Tensor:
        """() sum of `nll`, for training."""
        ...

    def nll(self, vectors: Tensor, right: Tensor) -> Tensor:
        """(N,) -log p of the right ids (N,), in nats."""
        ...

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """(N, V), in float32 at least; -inf for `<pad>`. Memory for all of it: give it few vectors."""
        ...

    def best(self, vectors: Tensor) -> Tensor:
        """(N,) int64, the likeliest id."""
        ...


class SoftmaxVocabulary(nn.Module):
    """One softmax over all strings.

    Args:
        input_size: D.
        vocab: V possible answers.
        tied: (V, D) weight shared with the embedding, or None for one of its own.
        chunk_scores: how many scores are in memory at once; those of one token at least.
        precision: of the matrix products.
    """

    def __init__(
        self, input_size: int, vocab: Vocab, tied: nn.Parameter | None, chunk_scores: int, precision: Precision
    ) -> None:
        super().__init__()
        own = nn.Linear(input_size, len(vocab))
        self.weight = own.weight if tied is None else tied
        self.bias = own.bias
        self.chunk, self.precision = max(1, chunk_scores // len(vocab)), precision  # tokens
        # added to the bias, not to the scores: (V,) costs nothing beside (N, V)
        never = torch.zeros(len(vocab))
        never[vocab.ids[PAD]] = -torch.inf
        self.register_buffer("never", never, persistent=False)
        self.never: Tensor

    @torch.no_grad()
    def drawn(self, init_range: float) -> SoftmaxVocabulary:
        """With new weights, drawn evenly from -init_range to init_range, and without bias."""
        self.weight.uniform_(-init_range, init_range)
        self.bias.zero_()
        return self

    def _bias(self) -> Tensor:
        return self.bias + self.never

    def loss(self, vectors: Tensor, right: Tensor) -> Tensor:
        return vocabulary_loss(vectors, self.weight, self._bias(), right, self.chunk, self.precision)

    def nll(self, vectors: Tensor, right: Tensor) -> Tensor:
        return vocabulary_nll(vectors, self.weight, self._bias(), right, self.chunk, self.precision)

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        scores = vocabulary_scores(vectors, self.weight, self._bias(), self.precision)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(dim=1)

    def best(self, vectors: Tensor) -> Tensor:
        bias = self._bias()
        chunks = (vectors[place] for place in chunks_of(len(vectors), self.chunk))
        return torch.cat([vocabulary_scores(some, self.weight, bias, self.precision).argmax(dim=1) for some in chunks])


class AdaptiveVocabulary(nn.Module):
    """Adaptive softmax (Grave et al. 2017): rare strings in clusters, of which only those that occur are computed, from
    shorter vectors. Ids are ordered by falling count. On a GPU it waits for the device to learn which clusters occur.

    Args:
        input_size: D.
        vocab: V possible answers.
        cutoffs: first ids of each cluster of rare strings, rising.

    Raises:
        ValueError: cutoffs that do not rise, or do not fit the vocabulary or the vectors' size.
    """

    def __init__(self, input_size: int, vocab: Vocab, cutoffs: list[int]) -> None:
        super().__init__()
        if vocab.ids[PAD] != 0:
            raise ValueError("the vocabulary does not begin with <pad>")
        if not cutoffs or cutoffs != sorted(set(cutoffs)) or cutoffs[0] < 2 or cutoffs[-1] >= len(vocab):
            raise ValueError(f"cutoffs {cutoffs} must rise from 2 to below the vocabulary's size, {len(vocab)}")
        if input_size < 4 ** len(cutoffs):
            raise ValueError(f"{len(cutoffs)} cutoffs need vectors of {4 ** len(cutoffs)} numbers, got {input_size}")
        # without <pad>: all ids are one less
        shifted = [cutoff - 1 for cutoff in cutoffs]
        self.clusters = nn.AdaptiveLogSoftmaxWithLoss(input_size, len(vocab) - 1, shifted, head_bias=True)

    def loss(self, vectors: Tensor, right: Tensor) -> Tensor:
        return self.nll(vectors, right).sum()

    def nll(self, vectors: Tensor, right: Tensor) -> Tensor:
        if not len(right):
            return vectors.sum(dim=1)
        found: Tensor = self.clusters(vectors, right - 1).output
        return -found.to(torch.promote_types(found.dtype, torch.float32))

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.clusters.log_prob(vectors)
        exact = found.to(torch.promote_types(found.dtype, torch.float32))
        return torch.cat([exact.new_full((len(exact), 1), -torch.inf), exact], dim=1)

    def best(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.clusters.predict(vectors) + 1
        return found


class LmHead(nn.Module):
    """Drop out, and score where scores are asked for.

    Args:
        dropout: probability of dropping a number of a token's vector.
        locked_dropout: the same numbers at all tokens of a row.
        output: probabilities from vectors.
        activation_penalty: alpha, of the mean square of vectors after dropout (AR; Merity et al. 2017, equation 6).
        change_penalty: beta, of the mean square of the difference between a vector and the one before it in its row,
            before dropout (TAR, equation 7).
    """

    def __init__(
        self,
        dropout: float,
        locked_dropout: float,
        output: SoftmaxVocabulary | AdaptiveVocabulary,
        activation_penalty: float,
        change_penalty: float,
    ) -> None:
        super().__init__()
        self.dropout, self.locked = Dropout(dropout), LockedDropout(locked_dropout)
        self.output: VocabularyOutput = output
        self.activation_penalty, self.change_penalty = activation_penalty, change_penalty

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        """Vectors (N, D) of the real tokens; where change is penalised, in training, (N, 2D): undropped ones behind."""
        rows = answer_rows(batch)
        plain = token_vectors(encoded, batch)
        locked = self.locked.of(Ragged(plain, rows, "packed")).values
        vectors: Tensor = self.dropout(locked, rows, "packed")
        return torch.cat([vectors, plain], dim=1) if self.training and self.change_penalty else vectors

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Nats, and in training the penalties of each token, summed over tokens."""
        vectors = self._vectors(scores)
        total = self.output.loss(vectors, answers(batch))
        if self.training and self.activation_penalty:
            total = total + self.activation_penalty * vectors.square().mean(dim=1).sum()
        if self.training and self.change_penalty:
            plain = scores[:, scores.shape[1] // 2 :]
            change = (plain[1:] - plain[:-1]).square().mean(dim=1)
            within = answer_rows(batch).position[1:] > 0
            total = total + self.change_penalty * change.masked_fill(~within, 0.0).sum()
        return Loss(total, scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Ragged:
        """Nats of each token, without penalties."""
        return Ragged(self.output.nll(self._vectors(scores), answers(batch)), answer_rows(batch), "packed")

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.best(self._vectors(scores))

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.log_probabilities(self._vectors(scores)).exp()

    def _vectors(self, scores: Tensor) -> Tensor:
        return scores.chunk(2, dim=1)[0] if self.training and self.change_penalty else scores
