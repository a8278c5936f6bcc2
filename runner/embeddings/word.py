"""A learned vector for each id of a feature, and word dropout."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from runner.common.types import Fraction, Name, PositiveFloat, Size
from runner.layers.dropout import Dropout, TypeDropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab, vocab_of


class UnkDropout(nn.Module):
    """Replace each known token by `<unk>` with probability `rate` in training, so that its vector is learned.

    Source: Iyyer et al. 2015, section 2.3.1. Masks are drawn like those of any dropout, from a row's own seed if it has
    one. `<pad>` and `<eos>` are never replaced, nor are ids of a vocabulary without `<unk>`.
    """

    def __init__(self, vocab: Vocab, rate: float) -> None:
        super().__init__()
        self.unk = vocab.unk
        self.first = len(vocab.specials)
        self.dropout = Dropout(rate)

    def forward(self, ids: Ragged) -> Ragged:
        """Map ids to ids."""
        if not self.training or self.dropout.p == 0.0 or self.unk is None:
            return ids
        kept = self.dropout.apply_to(ids.map(lambda values: torch.ones(values.shape, device=values.device))).values > 0
        return ids.with_values(ids.values.masked_fill(~kept & (ids.values >= self.first), self.unk))


class WordEmbedding(nn.Module):
    """An embedding that looks up a learned vector for each token.

    `<pad>` (id 0) is always the zero vector. Words outside the training set (`Vocab.extra`) use the vector of `<unk>`.

    Args:
        init_range: r: initialise uniformly in [-r, r]; None: from the standard normal distribution.
        unk_rate: share of known tokens replaced by `<unk>` in training (`UnkDropout`).
        type_dropout: probability of dropping all occurrences of a word in a row (`TypeDropout`).
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        size: Size,
        init_range: PositiveFloat | None,
        unk_rate: Fraction,
        type_dropout: Fraction,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        vocab = vocab_of(vocabs, feature)
        self.feature, self.output_size = feature, size
        self.table = nn.Embedding(vocab.known, size, padding_idx=0)
        if init_range is not None:
            with torch.no_grad():
                self.weight[1:].uniform_(-init_range, init_range)
        self.unk = vocab.unk or 0
        self.unk_dropout = UnkDropout(vocab, unk_rate)
        self.type_dropout, self.dropout = TypeDropout(type_dropout), Dropout(dropout)

    @property
    def weight(self) -> nn.Parameter:
        """The table (V, D), for heads that tie their weights to it."""
        weight = self.table.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids to rows of (length, D)."""
        ids: Ragged = self.unk_dropout(features[self.feature])
        known = ids.map(lambda values: values.masked_fill(values >= self.table.num_embeddings, self.unk))
        return self.dropout.apply_to(self.type_dropout.apply_to(known.map(self.table), known))
