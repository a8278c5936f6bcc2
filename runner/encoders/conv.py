"""Stacked layers of parallel convolutions of several widths (Kim 2014)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from runner.layers.convolution import Convolution
from runner.layers.dropout import Dropout, LockedDropout
from runner.layers.shortcut import Joint, Shortcut
from runner.ragged import Ragged
from runner.task import State
from runner.types import Fraction, PositiveInt

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class Conv(nn.Module):
    """Convolutions of every width side by side, concatenated, activated; each layer over the outputs of the one before.

    Args:
        input_size: D.
        causal: see only what stands before (language models).
        filters: outputs of each width.
        widths: tokens that the filters see.
        activation: relu, tanh or gelu.
        layers: how many, one upon another.
        layer_norm: normalise the output of every layer.
        shortcut: around every layer (`runner.layers.shortcut`).
        dropout: probability, on the output of every layer.
        locked_dropout: probability, on the input of every layer and the last output; the same numbers at all tokens of
            a row.

    Raises:
        ValueError: no widths.
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
        layers: PositiveInt,
        layer_norm: bool,
        shortcut: Shortcut,
        dropout: Fraction,
        locked_dropout: Fraction,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths=[]: at least one width is needed, for example [3, 4, 5]")
        self.output_size = filters * len(widths)
        sizes = [input_size] + [self.output_size] * (layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(Convolution(size, filters, width, causal) for width in widths) for size in sizes
        )
        self.activation = _ACTIVATIONS[activation]()
        self.joints = nn.ModuleList(Joint(size, self.output_size, shortcut, layer_norm) for size in sizes)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in sizes)
        self.locked = nn.ModuleList(LockedDropout(locked_dropout) for _ in [*sizes, self.output_size])

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Rows of (length, D) -> rows of (length, filters * number of widths)."""
        for place, convolutions in enumerate(self.layers):
            read: Ragged = self.locked[place].of(x)  # type: ignore[operator]
            parallel: list[Ragged] = [convolution(read) for convolution in convolutions]  # type: ignore[attr-defined]
            output = read.with_values(torch.cat([one.values for one in parallel], dim=-1)).map(self.activation)
            x = self.dropouts[place].of(self.joints[place](x, output))  # type: ignore[operator]
        return self.locked[-1].of(x), None  # type: ignore[operator]
