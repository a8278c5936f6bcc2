"""Parallel convolutions of several widths (Kim 2014)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from runner.layers.convolution import Convolution
from runner.layers.dropout import Dropout
from runner.ragged import Ragged
from runner.task import State
from runner.types import Fraction, PositiveInt

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class Conv(nn.Module):
    """Convolutions of every width side by side, concatenated, activated.

    Args:
        input_size: D.
        causal: see only what stands before (language models).
        filters: outputs of each width.
        widths: tokens that the filters see.
        activation: relu, tanh or gelu.
        dropout: probability, on the output.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        filters: PositiveInt,
        widths: list[PositiveInt],
        activation: Literal["relu", "tanh", "gelu"],
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths=[]: at least one width is needed, for example [3, 4, 5]")
        self.convolutions = nn.ModuleList(Convolution(input_size, filters, width, causal) for width in widths)
        self.activation, self.dropout = _ACTIVATIONS[activation](), Dropout(dropout)
        self.output_size = filters * len(widths)

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Rows of (length, D) -> rows of (length, filters * number of widths)."""
        parallel: list[Ragged] = [convolution(x) for convolution in self.convolutions]
        joined = torch.cat([one.values for one in parallel], dim=-1)
        return self.dropout.of(x.with_values(joined).map(self.activation)), None
