"""Several embeddings of a token, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import nn

from runner.layers.dropout import Dropout
from runner.ragged import Ragged
from runner.types import Fraction


class Embedding(Protocol):
    """Ids of features -> one vector a token."""

    output_size: int

    def __call__(self, features: Mapping[str, Ragged]) -> Ragged: ...


class Concat(nn.Module):
    """The vectors of all parts, concatenated.

    Args:
        parts: name -> embedding.
        dropout: probability of dropping a number of the whole vector.
    """

    def __init__(self, *, parts: dict[str, nn.Module], dropout: Fraction) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts={}: at least one embedding is needed")
        self.parts = nn.ModuleDict(parts)
        self.output_size = sum(cast(Embedding, part).output_size for part in parts.values())
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Ids -> rows of (length, sum of the parts' sizes)."""
        embedded: list[Ragged] = [part(features) for part in self.parts.values()]
        values = torch.cat([one.values for one in embedded], dim=-1)
        return self.dropout.of(embedded[0].with_values(values))
