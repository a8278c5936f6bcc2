"""Hidden layers for one vector per row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from runner.layers.dropout import Dropout
from runner.ragged.rows import Rows


class Mlp(nn.Module):
    """A multilayer perceptron: dropout, then a linear layer, ReLU and dropout for each size ([]: dropout only)."""

    def __init__(self, input_size: int, sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        widths = [input_size, *sizes]
        self.linears = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in widths)
        self.output_size = widths[-1]

    def forward(self, vectors: Tensor, single: Rows) -> Tensor:
        """Map vectors (B, D) to (B, output_size). `single` has one place per row (`Rows.single`)."""
        first, *others = self.dropouts
        vectors = first(vectors, single, "packed")
        for linear, dropout in zip(self.linears, others, strict=True):
            vectors = dropout(torch.relu(linear(vectors)), single, "packed")
        return vectors
