"""A pre-norm transformer encoder, with a causal mask for language models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import Depth, Fraction, PositiveInt, Size
from runner.layers.attention import Score, SelfAttention, sinusoids
from runner.layers.attention_window import AttentionWindow
from runner.layers.dropout import Dropout
from runner.layers.norm import Norm, normalisation
from runner.ragged.ragged import Ragged

# the number of tokens that each row has had, (B,) on the host, and for each layer the keys and values of the last P of
# them, (B, P, 2 * size)
AttentionState = tuple[IntArray, list[Tensor]]


class Transformer(nn.Module):
    """x + Attention(Norm(x)), then x + FeedForward(Norm(x)), `layers` times (Vaswani et al. 2017; Xiong et al. 2020).

    Args:
        input_size: D; projected to `size` if they differ.
        causal: a token sees itself and earlier tokens only.
        size: size of the vectors inside, a multiple of `heads`.
        feedforward: size of the hidden layer of FeedForward.
        score: see `runner.layers.attention`.
        norm: layer or batch; with batch, predictions depend on the batch in training (see `runner.layers.norm`).
        positions: sinusoidal, learned (up to max_positions) or none: added to token vectors and counted on from window
            to window; or rotary: applied in attention, where only distances matter.
        max_positions: for learned positions, tokens of the longest row, including its earlier windows.
        memory: earlier tokens that a token sees in a layer, in long rows and across windows alike; null: all of them.
        dropout: probability, on the input, the attention weights and both branches.
        carries_state: rows are windows of one text, and the state is carried from window to window.
    """

    per_token = True

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        size: Size,
        heads: Size,
        layers: Depth,
        feedforward: Size,
        score: Score,
        norm: Norm,
        positions: Literal["sinusoidal", "learned", "rotary", "none"],
        max_positions: PositiveInt,
        memory: PositiveInt | None,
        dropout: Fraction,
        carries_state: bool = False,
    ) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"size={size} must be a multiple of heads={heads}")
        if positions == "sinusoidal" and size % 2:
            raise ValueError(f"size={size} must be even for positions=sinusoidal")
        if positions == "rotary" and size // heads % 2:
            raise ValueError(f"size={size} / heads={heads} must be even for positions=rotary")
        if positions == "rotary" and score == "additive":
            raise ValueError("positions=rotary does not work with score=additive; use score=scaled_dot or score=dot")
        if memory is not None and not causal:
            raise ValueError(f"memory={memory} needs a causal encoder (task=lm); use memory=null for other tasks")
        if memory is None and carries_state:
            raise ValueError(
                "memory=null: the state would grow with the text; use memory=N tokens with batching=stream"
            )
        self.size, self.positions, self.max_positions, self.output_size = size, positions, max_positions, size
        self.causal, self.memory = causal, memory
        self.input = nn.Identity() if input_size == size else nn.Linear(input_size, size)
        self.table = nn.Embedding(max_positions, size) if positions == "learned" else None
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            _Layer(size, heads, feedforward, score, positions == "rotary", norm, dropout) for _ in range(layers)
        )
        self.norm = normalisation(norm, size)

    def forward(self, x: Ragged, state: AttentionState | tuple[()] | None) -> tuple[Ragged, AttentionState | None]:
        """Map rows of (length, D) and their initial state to rows of (length, size) and their final state."""
        x = x.with_values(x.filled(0.0)).map(self.input)
        n_seen: IntArray | None = None
        pasts: Sequence[Tensor | None] = [None] * len(self.layers)
        if state is not None:
            empty = x.values.new_zeros(x.rows.n_rows, 0, 2 * self.size)
            n_seen, pasts = state or (np.zeros(x.rows.n_rows, dtype=np.int64), [empty] * len(self.layers))
        if self.positions in ("sinusoidal", "learned"):
            # Vaswani et al. multiply token vectors by sqrt(size), which suits vectors of norm 1; those of
            # `WordEmbedding` are already so long that positions would hardly matter.
            x = x.with_values(x.values + self._position_vectors(x, n_seen))
        x = self.dropout.apply_to(x)
        window = AttentionWindow(x.rows, self.causal, self.memory, n_seen, 0 if pasts[0] is None else pasts[0].shape[1])
        ends: list[Tensor] = []
        for layer, past in zip(self.layers, pasts, strict=True):
            x, end = layer(x, window, past)
            ends += [] if end is None else [end]
        output = x.with_values(self.norm(x.filled(0.0), x.rows, x.layout))
        return output, None if n_seen is None else (n_seen + x.rows.host_lengths, ends)

    def layers_in_turn(self, lengths: IntArray) -> Sequence[nn.Module]:
        """Return the layers (`runner.interfaces.HasLayers`)."""
        return [*self.layers]

    def _position_vectors(self, x: Ragged, n_seen: IntArray | None) -> Tensor:
        """Return the vectors of positions, counted from the first token of each row's text."""
        padded = x.layout == "padded"
        places = torch.arange(x.rows.width, device=x.values.device) if padded else x.rows.position
        if n_seen is not None:
            before = x.rows.send(n_seen)
            places = before[:, None] + places if padded else before.index_select(0, x.rows.row) + places
        if self.table is None:
            return sinusoids(places, self.size, x.values.dtype)
        longest = int((x.rows.host_lengths + (0 if n_seen is None else n_seen)).max(initial=0)) if x.rows.on_host else 0
        if longest > self.max_positions:
            raise HydromelError(
                f"encoder.max_positions={self.max_positions}, but a row has {longest} tokens; "
                "raise it, cut rows by max_length, or use encoder.positions=sinusoidal or rotary"
            )
        vectors: Tensor = self.table(places.clamp(max=self.max_positions - 1))
        return vectors


class _Layer(nn.Module):
    """Attention and a feed-forward network, each after a normalisation and with a residual connection."""

    def __init__(
        self, size: int, heads: int, feedforward: int, score: Score, rotary: bool, norm: Norm, dropout: float
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(normalisation(norm, size) for _ in range(2))
        self.attention = SelfAttention(size, heads, score, rotary, dropout)
        self.widen, self.narrow = nn.Linear(size, feedforward), nn.Linear(feedforward, size)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in range(3))

    def forward(self, x: Ragged, window: AttentionWindow, past: Tensor | None) -> tuple[Ragged, Tensor | None]:
        x = x.with_values(x.filled(0.0))  # 0 times NaN in padding would spoil gradients of weights
        layout = {"rows": x.rows, "layout": x.layout}
        first_norm, second_norm = (partial(norm, **layout) for norm in self.norms)
        drop_attended, drop_hidden, drop_output = (partial(dropout, **layout) for dropout in self.dropouts)
        attended: Ragged
        attended, end = self.attention(x.map(first_norm), window, past)
        values = x.values + drop_attended(attended.filled(0.0))
        hidden = drop_hidden(torch.relu(self.widen(second_norm(values))))
        return x.with_values(values + drop_output(self.narrow(hidden))), end
