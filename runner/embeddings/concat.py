"""Several embeddings of a token, concatenated or summed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import nn

from runner.common.types import Fraction
from runner.interfaces import Embedding
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged


class JoinedEmbedding(nn.Module):
    """An embedding that concatenates the vectors of its parts, or sums them (parts of the same size)."""

    def __init__(self, *, parts: dict[str, nn.Module], join: Literal["concat", "sum"], dropout: Fraction) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts={}: at least one embedding is needed")
        sizes = {name: cast(Embedding, part).output_size for name, part in parts.items()}
        if join == "sum" and len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"join=sum needs parts of the same size, but {shown}; make them equal or use join=concat")
        self.parts, self.join = nn.ModuleDict(parts), join
        self.output_size = sum(sizes.values()) if join == "concat" else next(iter(sizes.values()))
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids to rows of (length, D); D is the sum of the parts' sizes, or their common size with join=sum."""
        embedded: list[Ragged] = [part(features) for part in self.parts.values()]
        parts = [vectors.values for vectors in embedded]
        values = torch.cat(parts, dim=-1) if self.join == "concat" else torch.stack(parts).sum(dim=0)
        return self.dropout.apply_to(embedded[0].with_values(values))
