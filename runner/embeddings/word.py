"""One learned vector for each id of a feature."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from runner.errors import unknown
from runner.ragged import Ragged
from runner.types import Fraction, PositiveInt
from runner.vocab import Vocab


class Word(nn.Module):
    """Look up a vector for each token; `<pad>` (id 0) is the zero vector and stays so.

    Args:
        vocabs: of all features.
        feature: which one to embed.
        size: D, numbers a vector.
        dropout: probability of dropping a number of a vector.

    Raises:
        HydromelError: no feature of that name.
    """

    def __init__(self, *, vocabs: Mapping[str, Vocab], feature: str, size: PositiveInt, dropout: Fraction) -> None:
        super().__init__()
        if feature not in vocabs or feature == "target":
            raise unknown("feature", feature, set(vocabs) - {"target"}, "embedding.feature")
        self.feature, self.output_size = feature, size
        self.table = nn.Embedding(len(vocabs[feature]), size, padding_idx=0)
        self.dropout = nn.Dropout(dropout)

    @property
    def weight(self) -> nn.Parameter:
        """(V, D), for heads that tie their weights to it."""
        weight = self.table.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Ids -> rows of (length, D)."""
        return features[self.feature].map(self.table).map(self.dropout)
