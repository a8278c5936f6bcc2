"""Vectors of the n-grams that end at each token: unigrams by vocabulary, longer n-grams by hashing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from runner.common.types import Fraction, Name, PositiveInt, Size, Width
from runner.layers.dropout import Dropout
from runner.layers.ngrams import ngram_buckets
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab, vocab_of


class NgramEmbedding(nn.Module):
    """The sum of the vectors of the n-grams that end at each token, as in fastText's classifier (Joulin et al. 2017).

    With one element per label it is a linear model over bags of n-grams: pooled by a sum, its vectors are scores.

    Args:
        lengths: lengths of the n-grams, in tokens; []: no n-grams, all vectors are zero.
        buckets: rows of the table that are shared by n-grams of two or more tokens.
        size: D, size of a vector; None: one element per label, initialised to zero.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        lengths: Annotated[list[Width], Field(max_length=100)],
        buckets: PositiveInt,
        size: Size | None,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        vocab = vocab_of(vocabs, feature)
        if len(set(lengths)) < len(lengths):
            raise ValueError(f"lengths={lengths}: give each length only once")
        self.feature, self.lengths, self.buckets = feature, lengths, buckets
        self.known, self.unk = vocab.known, vocab.unk or 0
        self.output_size = vocabs["target"].known if size is None else size
        hashed = buckets if max(lengths, default=0) > 1 else 0
        self.table = nn.Embedding(self.known + hashed, self.output_size, padding_idx=0)
        if size is None:
            nn.init.zeros_(self.table.weight)
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids to rows of (length, D)."""
        ids = features[self.feature].map(lambda values: values.masked_fill(values >= self.known, self.unk))
        rows = [self._rows(ids, length) for length in self.lengths] or [torch.zeros_like(ids.values, dtype=torch.int64)]
        # A single look-up for all lengths, since each look-up makes a gradient as large as the table.
        return self.dropout.apply_to(ids.with_values(self.table(torch.stack(rows, dim=-1)).sum(dim=-2)))

    def _rows(self, ids: Ragged, length: int) -> Tensor:
        """Return the table row of the n-gram that ends at each token, int64; 0 (the zero vector) if there is none."""
        if length == 1:
            return ids.values.long()
        buckets = ngram_buckets(ids, length, self.buckets).values
        return (buckets + (self.known - 1)).masked_fill(buckets == 0, 0)
