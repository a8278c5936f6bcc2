"""A highway layer (Srivastava, Greff, Schmidhuber 2015): part of a vector is transformed, the rest carried through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CARRIED = -2.0  # the gate's first bias: at the beginning most is carried through (their section 2.2)


class Highway(nn.Module):
    """g relu(W x + b) + (1 - g) x, with g = sigmoid(V x + c); each vector by itself.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        nn.init.constant_(self.gate.bias, CARRIED)

    def forward(self, values: Tensor) -> Tensor:
        """(..., D) -> the same."""
        return torch.lerp(values, torch.relu(self.transform(values)), torch.sigmoid(self.gate(values)))
