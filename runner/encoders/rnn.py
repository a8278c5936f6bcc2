"""Stacked recurrent layers in one or both directions."""

from __future__ import annotations

import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.common.types import Fraction, PositiveInt
from runner.layers.dropout import Dropout, locked_layers
from runner.layers.recurrent.cells import Carried
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.layers.residual import Joint, Shortcut
from runner.ragged.ragged import Ragged

Layers = list[Carried]  # one a layer; what a stream carries from window to window


class Rnn(nn.Module):
    """Recurrent layers, each over the outputs of the one before it.

    Args:
        input_size: D.
        causal: only forward (language models).
        cell: rnn, gru or lstm.
        hidden: H, a direction.
        layers: how many, one upon another.
        bidirectional: also from each row's own end; null: wherever the task is not causal.
        layer_norm: normalise the output of every layer.
        shortcut: around every layer (`runner.layers.residual`).
        dropout: probability, on the output of every layer.
        locked_dropout: probability, on the input of every layer and the last output; the same numbers at all tokens of
            a row. Or a list of them, one a place: the input of the first layer, of the second, ..., the last output.
        weight_drop: probability of dropping a hidden-to-hidden weight, for all rows and tokens of an update alike.

    Raises:
        HydromelError: bidirectional, and causal; another number of probabilities than places.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        cell: Cell,
        hidden: PositiveInt,
        layers: PositiveInt,
        bidirectional: bool | None,
        layer_norm: bool,
        shortcut: Shortcut,
        dropout: Fraction,
        locked_dropout: Fraction | list[Fraction],
        weight_drop: Fraction,
    ) -> None:
        super().__init__()
        if causal and bidirectional:
            raise HydromelError("encoder.bidirectional=true would see the next token that task=lm predicts; use false")
        both = not causal if bidirectional is None else bidirectional
        self.output_size = hidden * (2 if both else 1)
        sizes = [input_size] + [self.output_size] * (layers - 1)
        self.forwards = nn.ModuleList(Recurrence(cell, size, hidden, False, weight_drop) for size in sizes)
        self.backwards = nn.ModuleList(Recurrence(cell, size, hidden, True, weight_drop) for size in sizes if both)
        self.joints = nn.ModuleList(Joint(size, self.output_size, shortcut, layer_norm) for size in sizes)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in sizes)
        self.locked = locked_layers(locked_dropout, layers + 1)

    def forward(self, x: Ragged, state: Layers | tuple[()] | None) -> tuple[Ragged, Layers | None]:
        """Rows of (length, D), forward state at their begin -> rows of (length, H or 2H), state at each row's own end.

        The state is `START` at the begin of texts that are read in windows; None, and then None comes out, where rows
        stand by themselves.
        """
        ends: Layers = []
        for place, one in enumerate(self.forwards):
            read: Ragged = self.locked[place].of(x)  # type: ignore[operator]
            output, end = one(read, state[place] if state else state)
            if end is not None:
                ends.append(end)
            if self.backwards:
                backward: Ragged = self.backwards[place](read, None)[0]
                output = output.with_values(torch.cat([output.values, backward.values], dim=-1))
            x = self.dropouts[place].of(self.joints[place](x, output))  # type: ignore[operator]
        return self.locked[-1].of(x), None if state is None else ends  # type: ignore[operator]
