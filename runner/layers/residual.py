"""Shortcuts around layers, highway layers among them, and the normalisation of a layer's output."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from runner.ragged.ragged import Ragged

Shortcut = Literal["none", "residual", "highway"]
GATE_BIAS = -2.0  # initial bias of a gate: at first most of the input is carried through (Srivastava et al. 2015)


class Highway(nn.Module):
    """g relu(W x + b) + (1 - g) x with g = sigmoid(V x + c) (Srivastava, Greff, Schmidhuber 2015, section 2.2)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    def forward(self, values: Tensor) -> Tensor:
        """Transform vectors (..., D)."""
        return torch.lerp(values, torch.relu(self.transform(values)), torch.sigmoid(self.gate(values)))


class ResidualNorm(nn.Module):
    """A combination of a layer's output y with its input x, optionally layer-normalised (Ba et al. 2016).

    none: y; residual: x + y (He et al. 2016); highway: g y + (1 - g) x, with g = sigmoid(V x + c) (Srivastava et al.
    2015). Where the sizes of x (`input_size`) and y (`size`) differ, x is projected by a learned linear map.
    """

    def __init__(self, input_size: int, size: int, shortcut: Shortcut, layer_norm: bool) -> None:
        super().__init__()
        projects = shortcut != "none" and input_size != size
        self.shortcut = shortcut
        self.project = nn.Linear(input_size, size, bias=False) if projects else nn.Identity()
        self.gate = nn.Linear(input_size, size) if shortcut == "highway" else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, GATE_BIAS)
        self.norm = nn.LayerNorm(size) if layer_norm else nn.Identity()

    def forward(self, before: Ragged, after: Ragged) -> Ragged:
        """Combine rows of (length, input_size) with rows of (length, size); return rows of (length, size)."""
        if self.shortcut == "none" and isinstance(self.norm, nn.Identity):
            return after
        x, y = before.filled(0.0), after.filled(0.0)  # 0 times NaN in padding would spoil gradients of weights
        if self.shortcut == "residual":
            y = self.project(x) + y
        elif self.gate is not None:
            y = torch.lerp(self.project(x), y, torch.sigmoid(self.gate(x)))
        return after.with_values(self.norm(y))
