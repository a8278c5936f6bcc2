"""Stacked recurrent layers in one or both directions."""

from __future__ import annotations

import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.common.types import Depth, Fraction, Size
from runner.layers.dropout import Dropout, locked_layers
from runner.layers.recurrent.cells import RecurrentState
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.layers.residual import ResidualNorm, Shortcut
from runner.ragged.ragged import Ragged

RnnState = list[RecurrentState]  # for each layer, the state at the end of each row


class Rnn(nn.Module):
    """Stacked recurrent layers.

    Args:
        causal: forward direction only (language models).
        hidden: H, hidden units per direction.
        bidirectional: also read each row from its end; null: if the task is not causal.
        layer_norm: normalise the output of every layer.
        shortcut: around every layer (`runner.layers.residual`).
        dropout: probability, on the output of every layer.
        locked_dropout: probability, on the input of every layer and the last output, for the same features at all
            tokens of a row. Or a list: for the input of the first layer, of the second, ..., and for the last output.
        weight_drop: probability of dropping a hidden-to-hidden weight; all rows and tokens of a batch share the mask.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        cell: Cell,
        hidden: Size,
        layers: Depth,
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
        self.joints = nn.ModuleList(ResidualNorm(size, self.output_size, shortcut, layer_norm) for size in sizes)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in sizes)
        self.locked = locked_layers(locked_dropout, layers + 1)

    def forward(self, x: Ragged, state: RnnState | tuple[()] | None) -> tuple[Ragged, RnnState | None]:
        """Map rows of (length, D) and their initial state to rows of (length, H or 2H) and their final state.

        The state (`runner.interfaces.State`) is that of the forward direction.
        """
        ends: RnnState = []
        for place, layer in enumerate(self.forwards):
            read: Ragged = self.locked[place].apply_to(x)  # type: ignore[operator]
            output, end = layer(read, state[place] if state else state)
            if end is not None:
                ends.append(end)
            if self.backwards:
                backward: Ragged = self.backwards[place](read, None)[0]
                output = output.with_values(torch.cat([output.values, backward.values], dim=-1))
            x = self.dropouts[place].apply_to(self.joints[place](x, output))  # type: ignore[operator]
        return self.locked[-1].apply_to(x), None if state is None else ends  # type: ignore[operator]
