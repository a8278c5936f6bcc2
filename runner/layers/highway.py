"""A highway layer (Srivastava, Greff, Schmidhuber 2015): a gate mixes each vector with its transformation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GATE_BIAS = -2.0  # initial bias of the gate: at first most of the input is carried through (section 2.2)


class Highway(nn.Module):
    """g relu(W x + b) + (1 - g) x with g = sigmoid(V x + c), for each vector separately.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    def forward(self, values: Tensor) -> Tensor:
        """Transform vectors (..., D)."""
        return torch.lerp(values, torch.relu(self.transform(values)), torch.sigmoid(self.gate(values)))
