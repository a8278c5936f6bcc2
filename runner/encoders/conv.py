"""Stacked layers of parallel convolutions of several widths (Kim 2014)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from runner.common.types import Depth, Fraction, Size, Widths
from runner.layers.attention_window import latest_indices
from runner.layers.convolution import Convolution, convolve_parallel, uses_products
from runner.layers.dropout import Dropout, locked_layers
from runner.layers.moves import pack_tokens
from runner.layers.residual import ResidualNorm, Shortcut
from runner.ragged.ragged import Ragged

# for each layer, the last inputs of each row, (B, widest - 1, D): all that a causal filter sees of an earlier window;
# zeros where a row has had fewer
ConvState = list[Tensor]
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class Conv(nn.Module):
    """Stacked layers, each of which concatenates convolutions of all widths and applies an activation.

    Args:
        causal: filters see a token and earlier ones only (language models).
        filters: outputs of each width.
        widths: number of tokens that filters see.
        layer_norm: normalise the output of every layer.
        shortcut: around every layer (`runner.layers.residual`).
        dropout: probability, on the output of every layer.
        locked_dropout: probability, on the input of every layer and the last output, for the same features at all
            tokens of a row. Or a list: for the input of the first layer, of the second, ..., and for the last output.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        filters: Size,
        widths: Widths,
        activation: Literal["relu", "tanh", "gelu"],
        layers: Depth,
        layer_norm: bool,
        shortcut: Shortcut,
        dropout: Fraction,
        locked_dropout: Fraction | list[Fraction],
    ) -> None:
        super().__init__()
        self.output_size = filters * len(widths)
        self.causal, self.tail = causal, max(widths) - 1
        self.sizes = sizes = [input_size] + [self.output_size] * (layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(Convolution(size, filters, width, causal) for width in widths) for size in sizes
        )
        self.activation = _ACTIVATIONS[activation]()
        self.joints = nn.ModuleList(ResidualNorm(size, self.output_size, shortcut, layer_norm) for size in sizes)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in sizes)
        self.locked = locked_layers(locked_dropout, layers + 1)

    def forward(self, x: Ragged, state: ConvState | tuple[()] | None) -> tuple[Ragged, ConvState | None]:
        """Map rows of (length, D) and their initial state to rows of (length, filters * widths) and their final state.

        Only causal layers have a state (`runner.interfaces.State`). On a CPU, padded rows are returned packed if all
        layers are matrix products.
        """
        if state is not None and not self.causal:
            raise ValueError("only causal convolutions carry a state; got a state with causal=False")
        if uses_products(x, self.sizes):  # products return packed tokens: pack once, not in each layer
            x = Ragged(pack_tokens(x), x.rows, "packed")
        ends: ConvState = []
        for place, convolutions in enumerate(self.layers):
            read: Ragged = self.locked[place].apply_to(x)  # type: ignore[operator]
            past = None
            if state is not None:
                past = state[place] if state else read.values.new_zeros(x.rows.n_rows, self.tail, self.sizes[place])
                ends.append(self._last_inputs(read, past))
            output = convolve_parallel([*convolutions], read, past).map(self.activation)  # type: ignore[misc]
            x = self.dropouts[place].apply_to(self.joints[place](x, output))  # type: ignore[operator]
        return self.locked[-1].apply_to(x), None if state is None else ends  # type: ignore[operator]

    def _last_inputs(self, x: Ragged, past: Tensor) -> Tensor:
        """Return the last inputs of each row, those of its past first, (B, tail, D)."""
        past = past.to(x.values.dtype)
        if x.layout == "padded" and x.rows.is_rectangle(x.rows.width):
            return torch.cat([past, x.values], dim=1)[:, x.rows.width :]
        own = x.values if x.layout == "packed" else x.values.flatten(0, 1)
        indices = x.rows.cached(("last inputs", x.layout, self.tail), lambda: self._last_input_indices(x))
        return torch.cat([past.flatten(0, 1), own]).index_select(0, indices).view(past.shape)

    def _last_input_indices(self, x: Ragged) -> Tensor:
        """Return the indices of the last tokens of each row, past tokens first, for any layer, (B * tail,)."""
        rows, n_past = x.rows, x.rows.n_rows * self.tail
        starts = rows.host_offsets[:-1] if x.layout == "packed" else np.arange(rows.n_rows) * rows.width
        return latest_indices(rows, self.tail, np.arange(rows.n_rows) * self.tail, self.tail, n_past + starts)
