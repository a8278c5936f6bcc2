"""The language model head: token vectors -> probabilities of the next token over the vocabulary.

The "scores" it passes on are token vectors, (N, D), or (N, 2D) if the vectors before dropout are penalised too. The
vocabulary scores (N, V) of a batch are computed chunk by chunk where they are needed; in training they never exist as
a whole, since they would take more memory than the rest of the model.

Shapes: N real tokens, vectors of size D, V strings in the vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from runner.interfaces import Loss, OutputLayer
from runner.layers.chunked_softmax import Precision, chunk_slices, vocabulary_loss, vocabulary_nll, vocabulary_scores
from runner.layers.dropout import Dropout, LockedDropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.targets import target_ids, target_rows, token_vectors


class SoftmaxVocabulary(nn.Module):
    """A full softmax over the vocabulary: probabilities of vectors (N, D). `<pad>` has probability 0.

    Args:
        input_size: D.
        vocab: the target vocabulary of V strings.
        tied: (V, D) weight shared with the embedding, or None for a separate weight.
        chunk_scores: number of scores held in memory at once; a chunk is one token or more.
        precision: precision of the matrix products.
    """

    def __init__(
        self, input_size: int, vocab: Vocab, tied: nn.Parameter | None, chunk_scores: int, precision: Precision
    ) -> None:
        super().__init__()
        own = nn.Linear(input_size, len(vocab))
        self.weight, self.bias = own.weight if tied is None else tied, own.bias
        self.chunk, self.precision = max(1, chunk_scores // len(vocab)), precision  # `chunk` is in tokens
        # <pad> is excluded through the bias (V,): adding -inf to the scores would be a pass over (N, V) values.
        pad_bias = torch.zeros(len(vocab))
        pad_bias[vocab.pad] = -torch.inf
        self.register_buffer("pad_bias", pad_bias, persistent=False)
        self.pad_bias: Tensor

    @torch.no_grad()
    def initialized_uniformly(self, init_range: float) -> SoftmaxVocabulary:
        """Reinitialise in place: weights uniform in [-init_range, init_range], biases 0. Return self."""
        self.weight.uniform_(-init_range, init_range)
        self.bias.zero_()
        return self

    def _bias(self) -> Tensor:
        return self.bias + self.pad_bias

    def loss(self, vectors: Tensor, target: Tensor) -> Tensor:
        """Return the sum of `nll`, a scalar, for training."""
        return vocabulary_loss(vectors, self.weight, self._bias(), target, self.chunk, self.precision)

    def nll(self, vectors: Tensor, target: Tensor) -> Tensor:
        """Return -log p of the target ids (N,): (N,) in nats."""
        return vocabulary_nll(vectors, self.weight, self._bias(), target, self.chunk, self.precision)

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """Return log probabilities (N, V), all in memory at once, in float32 or wider; -inf for `<pad>`."""
        scores = vocabulary_scores(vectors, self.weight, self._bias(), self.precision)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(dim=1)

    def most_likely(self, vectors: Tensor) -> Tensor:
        """Return the most likely ids (N,), int64."""
        bias = self._bias()
        chunks = (vectors[place] for place in chunk_slices(len(vectors), self.chunk))
        scores = (vocabulary_scores(chunk, self.weight, bias, self.precision) for chunk in chunks)
        return torch.cat([chunk_scores.argmax(dim=1) for chunk_scores in scores])


class PretrainedVocabulary(nn.Module):
    """The output layer of a pretrained language model over its own M pieces, for a vocabulary of V ids.

    Its methods are those of `SoftmaxVocabulary`. Probabilities are those of the model: pieces that are not in the
    vocabulary keep theirs. Ids without a piece, and further ids of a piece that an earlier one has, have probability 0.

    Args:
        layer: the weights, which belong to the embedding, and the piece of each id.
        chunk_scores, precision: as for `SoftmaxVocabulary`.
    """

    def __init__(self, layer: OutputLayer, chunk_scores: int, precision: Precision) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.chunk, self.precision = max(1, chunk_scores // len(layer.weight)), precision
        ids = layer.ids.cpu().numpy()
        first = np.zeros(len(ids), dtype=np.bool_)
        first[np.unique(ids, return_index=True)[1]] = True
        self.pieces: Tensor  # (V,) the piece of each id
        self.impossible: Tensor  # (V,) true for ids with probability 0
        self.register_buffer("pieces", layer.ids.clamp(min=0), persistent=False)
        self.register_buffer("impossible", torch.from_numpy(~first | (ids < 0)), persistent=False)

    def _bias(self) -> Tensor:
        return self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias

    def loss(self, vectors: Tensor, target: Tensor) -> Tensor:
        pieces = self.pieces.index_select(0, target)
        return vocabulary_loss(vectors, self.weight, self._bias(), pieces, self.chunk, self.precision)

    def nll(self, vectors: Tensor, target: Tensor) -> Tensor:
        pieces = self.pieces.index_select(0, target)
        return vocabulary_nll(vectors, self.weight, self._bias(), pieces, self.chunk, self.precision)

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        scores = vocabulary_scores(vectors, self.weight, self._bias(), self.precision)
        log_p = scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(dim=1)
        return log_p.index_select(1, self.pieces).masked_fill(self.impossible, -torch.inf)

    def most_likely(self, vectors: Tensor) -> Tensor:
        chunks = (vectors[place] for place in chunk_slices(len(vectors), self.chunk))
        return torch.cat([self.log_probabilities(chunk).argmax(dim=1) for chunk in chunks])


class AdaptiveVocabulary(nn.Module):
    """An adaptive softmax (Grave et al. 2017), which groups rare strings into clusters with smaller projections.

    Its methods are those of `SoftmaxVocabulary`. Only the clusters that occur in a batch are computed. Ids must be
    sorted by decreasing frequency. On a GPU it synchronises with the device to find out which clusters occur.

    Args:
        input_size: D.
        vocab: the target vocabulary of V strings.
        cutoffs: first id of each cluster of rare strings, increasing.

    Raises:
        ValueError: cutoffs that do not increase, or do not fit the vocabulary or the input size.
    """

    def __init__(self, input_size: int, vocab: Vocab, cutoffs: list[int]) -> None:
        super().__init__()
        if vocab.pad != 0:
            raise ValueError(f"the first id of the vocabulary is {vocab.tokens[:1]}; it must be <pad>")
        if not cutoffs or cutoffs != sorted(set(cutoffs)) or cutoffs[0] < 2 or cutoffs[-1] >= len(vocab):
            raise ValueError(
                f"cutoffs {cutoffs} must increase, from at least 2 to below the vocabulary size {len(vocab)}"
            )
        if input_size < (smallest := 4 ** len(cutoffs)):
            raise ValueError(f"{len(cutoffs)} cutoffs need vectors of size {smallest} or more, got {input_size}")
        # torch's module has no class for <pad> (id 0), so all ids inside it are one less.
        shifted = [cutoff - 1 for cutoff in cutoffs]
        self.clusters = nn.AdaptiveLogSoftmaxWithLoss(input_size, len(vocab) - 1, shifted, head_bias=True)

    def loss(self, vectors: Tensor, target: Tensor) -> Tensor:
        return self.nll(vectors, target).sum()

    def nll(self, vectors: Tensor, target: Tensor) -> Tensor:
        # An empty batch gives an empty result that is still part of the graph.
        if not len(target):
            return vectors.sum(dim=1)
        log_p: Tensor = self.clusters(vectors, target - 1).output
        return -log_p.to(torch.promote_types(log_p.dtype, torch.float32))

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        log_p: Tensor = self.clusters.log_prob(vectors)
        exact = log_p.to(torch.promote_types(log_p.dtype, torch.float32))
        return torch.cat([exact.new_full((len(exact), 1), -torch.inf), exact], dim=1)

    def most_likely(self, vectors: Tensor) -> Tensor:
        ids: Tensor = self.clusters.predict(vectors) + 1
        return ids


class LmHead(nn.Module):
    """A language model head: dropout, then a distribution over the vocabulary.

    Args:
        dropout: probability of dropping an element of a token's vector.
        locked_dropout: the same with one mask for all tokens of a row.
        output: vectors -> probabilities over the vocabulary.
        activation_penalty: alpha, weight of the mean square of the vectors after dropout (AR; Merity et al. 2017,
            equation 6).
        change_penalty: beta, weight of the mean square of the difference between consecutive vectors of a row before
            dropout (TAR, equation 7).
    """

    def __init__(
        self,
        dropout: float,
        locked_dropout: float,
        output: SoftmaxVocabulary | PretrainedVocabulary | AdaptiveVocabulary,
        activation_penalty: float,
        change_penalty: float,
    ) -> None:
        super().__init__()
        self.dropout, self.locked = Dropout(dropout), LockedDropout(locked_dropout)
        self.output = output
        self.activation_penalty, self.change_penalty = activation_penalty, change_penalty

    def forward(self, encoded: Ragged, batch: Batch) -> Tensor:
        """Return the vectors (N, D) of the real tokens after dropout.

        In training with a change penalty they are (N, 2D): the second half holds the vectors before dropout.
        """
        rows = target_rows(batch)
        plain = token_vectors(encoded, batch)
        locked = self.locked.apply_to(Ragged(plain, rows, "packed")).values
        vectors: Tensor = self.dropout(locked, rows, "packed")
        return torch.cat([vectors, plain], dim=1) if self.training and self.change_penalty else vectors

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the loss in nats, plus in training the penalties, summed over tokens."""
        vectors = self._vectors(scores)
        total = self.output.loss(vectors, target_ids(batch))
        if self.training and self.activation_penalty:
            total = total + self.activation_penalty * vectors.square().mean(dim=1).sum()
        if self.training and self.change_penalty:
            plain = scores[:, scores.shape[1] // 2 :]
            change = (plain[1:] - plain[:-1]).square().mean(dim=1)
            # Rows are concatenated, so the difference across a row boundary must not count.
            same_row = target_rows(batch).position[1:] > 0
            total = total + self.change_penalty * change.masked_fill(~same_row, 0.0).sum()
        return Loss(total, scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Ragged:
        """Return the loss of each token in nats, without penalties."""
        return Ragged(self.output.nll(self._vectors(scores), target_ids(batch)), target_rows(batch), "packed")

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.most_likely(self._vectors(scores))

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.log_probabilities(self._vectors(scores)).exp()

    def _vectors(self, scores: Tensor) -> Tensor:
        return scores.chunk(2, dim=1)[0] if self.training and self.change_penalty else scores
