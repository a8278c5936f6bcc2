"""An embedding: hashed words, so that the size of the table does not depend on the data set."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runner.common.types import PositiveInt
from runner.interfaces import Description
from runner.layers.dropout import Dropout
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab


class HashedWord(nn.Module):
    """Look up a word's vector in one of a fixed number of buckets, which are chosen by a hash of the word.

    Args:
        vocabs: vocabularies of all features.
        feature: the feature to embed.
        buckets: number of vectors.
        size: components of a vector.
        dropout: probability of dropping a component of a vector.
    """

    def __init__(
        self, *, vocabs: Mapping[str, Vocab], feature: str, buckets: PositiveInt, size: PositiveInt, dropout: float
    ) -> None:
        super().__init__()
        self.feature, self.output_size = feature, size
        buckets_of_words = [zlib.crc32(word.encode()) % buckets for word in vocabs[feature].tokens]
        self.register_buffer("bucket", torch.tensor(buckets_of_words), persistent=False)
        self.bucket: Tensor
        self.table = nn.Embedding(buckets, size)
        self.dropout = Dropout(dropout)
        self.looked_up = 0

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids to rows of (length, size)."""
        ids = features[self.feature]
        self.looked_up += ids.rows.n_tokens  # known on the host
        return self.dropout.apply_to(ids.map(lambda values: self.table(self.bucket[values])))

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Report how many words share a bucket: a line on the console, and an entry under `vocab` in result.json."""
        words, used = len(self.bucket), len(self.bucket.unique())
        entry = {"feature": self.feature, "words": words, "buckets_used": used}
        return Description("hashed", entry, f"{words:,} words of features.{self.feature} share {used:,} buckets")

    def counters(self) -> dict[str, dict[str, int]]:
        """Count look-ups: training's total is `counters.hashed.tokens` in result.json."""
        return {"hashed": {"tokens": self.looked_up}}
