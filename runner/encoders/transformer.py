"""A pre-norm transformer encoder, with a causal mask for language models."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from runner.errors import HydromelError
from runner.layers.attention import Score, SelfAttention
from runner.layers.dropout import Dropout
from runner.layers.norm import Norm, normalisation
from runner.ragged import Ragged
from runner.task import State
from runner.types import Fraction, PositiveInt


class Transformer(nn.Module):
    """x + Attention(Norm(x)), then x + FeedForward(Norm(x)), `layers` times (Vaswani et al. 2017; Xiong et al. 2020).

    Args:
        input_size: D; projected to `size` where they differ.
        causal: each token sees those up to itself.
        size: of the vectors within, a multiple of `heads`.
        heads: of attention.
        layers: how many.
        feedforward: size of the hidden layer between.
        score: of attention: dot, scaled_dot or additive (see `runner.layers.attention`).
        norm: layer, or batch, whose answers depend on the batch in training (see `runner.layers.norm`).
        positions: sinusoidal (any length), learned (up to max_positions), or none.
        max_positions: longest row for learned positions.
        dropout: probability, on the input, the attention weights and both branches.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        size: PositiveInt,
        heads: PositiveInt,
        layers: PositiveInt,
        feedforward: PositiveInt,
        score: Score,
        norm: Norm,
        positions: Literal["sinusoidal", "learned", "none"],
        max_positions: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"size={size} must be a multiple of heads={heads}")
        if positions == "sinusoidal" and size % 2:
            raise ValueError(f"size={size} must be even for positions=sinusoidal")
        self.size, self.positions, self.max_positions, self.output_size = size, positions, max_positions, size
        self.input = nn.Identity() if input_size == size else nn.Linear(input_size, size)
        self.table = nn.Embedding(max_positions, size) if positions == "learned" else None
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            _Layer(size, heads, feedforward, causal, score, norm, dropout) for _ in range(layers)
        )
        self.norm = normalisation(norm, size)

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Rows of (length, D) -> rows of (length, size)."""
        x = x.with_values(x.filled(0.0)).map(self.input)
        if self.positions != "none":
            # not times sqrt(size), which is meant for embeddings of unit length: ours would drown the positions
            x = x.with_values(x.values + self._encoded(x))
        x = self.dropout.of(x)
        for layer in self.layers:
            x = layer(x)
        return x.with_values(self.norm(x.filled(0.0), x.rows, x.layout)), None

    def _encoded(self, x: Ragged) -> Tensor:
        """The positions' vectors, counted from each row's first token."""
        count = x.rows.width if x.layout == "padded" else max(1, x.rows.max_len)
        if self.table is None:
            vectors = sinusoids(count, self.size, x.values)
        elif x.rows.max_len > self.max_positions:
            raise HydromelError(
                f"encoder.max_positions={self.max_positions}, but a row has {x.rows.max_len} tokens; "
                "raise it, cut rows by max_length, or use encoder.positions=sinusoidal"
            )
        else:
            places = torch.arange(count, device=x.values.device).clamp(max=self.max_positions - 1)
            vectors = self.table(places)
        return vectors if x.layout == "padded" else vectors.index_select(0, x.rows.position)


class _Layer(nn.Module):
    def __init__(
        self, size: int, heads: int, feedforward: int, causal: bool, score: Score, norm: Norm, dropout: float
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(normalisation(norm, size) for _ in range(2))
        self.attention = SelfAttention(size, heads, causal, score, dropout)
        self.widen, self.narrow = nn.Linear(size, feedforward), nn.Linear(feedforward, size)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in range(3))

    def forward(self, x: Ragged) -> Ragged:
        x = x.with_values(x.filled(0.0))  # in padding too, the gradient of a weight is 0 times its input
        there = {"rows": x.rows, "layout": x.layout}
        first_norm, second_norm = (partial(one, **there) for one in self.norms)
        drop_attended, drop_hidden, drop_output = (partial(one, **there) for one in self.dropouts)
        attended: Ragged = self.attention(x.map(first_norm))
        values = x.values + drop_attended(attended.filled(0.0))
        hidden = drop_hidden(torch.relu(self.widen(second_norm(values))))
        return x.with_values(values + drop_output(self.narrow(hidden)))


def sinusoids(count: int, size: int, like: Tensor) -> Tensor:
    """(count, size) sines and cosines of growing wavelength (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(count, device=like.device, dtype=like.dtype)[:, None]
    rate = torch.exp(torch.arange(0, size, 2, device=like.device, dtype=like.dtype) * (-math.log(10_000.0) / size))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(1)
