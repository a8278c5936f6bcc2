"""Multi-head self-attention within each row, with dot, scaled dot or additive scores, over a whole row or its past.

Shapes: B rows, H heads of size d, D = H d; T places of queries and K = P + T places of keys, P of them in the past
(`runner.layers.attention_window.AttentionWindow`). Positions are sinusoids to add to token vectors, or rotations of
queries and keys.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runner.layers.attention_window import AttentionWindow
from runner.layers.dropout import Dropout, drop_values
from runner.ragged.ragged import Ragged

Score = Literal["dot", "scaled_dot", "additive"]
ADDITIVE_NUMBERS = 2**22  # numbers that additive scores hold at once before the sum over d: 16 MiB in float32


class SelfAttention(nn.Module):
    """softmax(score(q, k)) V over the keys that each query sees.

    `dot` is q . k (Luong et al. 2015, eq. 8), `scaled_dot` is q . k / sqrt(d) (Vaswani et al. 2017, eq. 1), `additive`
    is v . tanh(q + k) (Bahdanau et al. 2015, appendix A.1.2: the projections of queries and keys are its W and U).
    `rotary` rotates queries and keys by their positions (`rotate`); `dropout` drops attention weights.
    """

    has_attention = True  # `runner.interfaces.HasAttention`

    def __init__(self, size: int, heads: int, score: Score, rotary: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.score, self.rotary = heads, score, rotary
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.dropout = Dropout(dropout)
        if score == "additive":
            bound = math.sqrt(heads / size)  # as in torch's linear layers with d inputs
            self.additive = nn.Parameter(torch.empty(heads, size // heads).uniform_(-bound, bound))

    def forward(self, x: Ragged, window: AttentionWindow, past: Tensor | None) -> tuple[Ragged, Tensor | None]:
        """Attend within rows of (length, D); return such rows, and the past at each row's end, (B, P', 2D).

        The past is (B, P, 2D) keys and values, placed as `window` says; None: rows are independent. Packed rows are
        padded for the products of queries and keys only, in blocks of similar lengths.
        """
        x = x.with_values(x.filled(0.0)).map(self.queries_keys_values)
        size, attended, end = x.values.shape[-1] // 3, [], None
        for part, places in window.rectangles(x):
            queries, keys_values = torch.split(places, [size, 2 * size], dim=-1)
            if past is not None:
                keys_values = torch.cat([past.to(keys_values.dtype), keys_values], dim=1)
                end = keys_values.flatten(0, 1).index_select(0, part.next_keys).view(len(past), part.next_places, -1)
            attended.append(self._attend(queries, keys_values, part))
        return window.from_rectangles(attended, x.layout).map(self.output), end

    def _attend(self, queries: Tensor, keys_values: Tensor, window: AttentionWindow) -> Tensor:
        """Map queries (B, T, D) and keys and values (B, K, 2D) to weighted values (B, T, D)."""
        n_rows, width, _ = queries.shape
        queries = queries.view(n_rows, width, self.heads, -1).transpose(1, 2)
        keys, values = keys_values.view(n_rows, window.keys, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotary:
            # positions count from the start of the past: only distances matter, and small numbers are exact
            turns = angles(torch.arange(window.keys, device=keys.device), keys.shape[-1], keys.dtype)
            queries, keys = rotate(queries, turns[window.places :]), rotate(keys, turns)
        if self.score == "additive":
            attended = _weighted(additive_scores(queries, keys, self.additive), values, window, self.dropout)
        else:
            scale = 1.0 if self.score == "dot" else 1.0 / math.sqrt(queries.shape[-1])
            attended = dot_attention(queries, keys, values, window, scale, self.dropout)
        return attended.transpose(1, 2).reshape(n_rows, width, -1)


def dot_attention(
    queries: Tensor, keys: Tensor, values: Tensor, window: AttentionWindow, scale: float, dropout: Dropout
) -> Tensor:
    """Return softmax(scale q . k) V over the keys that each query sees, (B, H, T, d).

    Shapes: queries (B, H, T, d), keys and values (B, H, K, d). `dropout` drops attention weights.
    """
    drops = dropout.training and dropout.p > 0.0
    # torch's fused kernels have no dropout with a seed per row, and on a CPU none at all
    if drops and (window.rows.seeds is not None or queries.device.type == "cpu"):
        return _weighted((queries * scale) @ keys.transpose(2, 3), values, window, dropout)
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=None if window.is_triangle else window.mask,
        dropout_p=dropout.p if drops else 0.0,
        is_causal=window.is_triangle,
        scale=scale,
    )


def _weighted(scores: Tensor, values: Tensor, window: AttentionWindow, dropout: Dropout) -> Tensor:
    """Return the values weighted by a softmax of scores (B, H, T, K) in at least float32, after dropout."""
    if window.mask is not None:
        # A sum needs no pass for its gradient, but keeps a NaN, which unused places of the past may hold.
        has_past = window.places > 0
        scores = scores.masked_fill(~window.mask, -torch.inf) if has_past else scores + window.bias(scores.dtype)
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    if dropout.training and dropout.p > 0.0 and window.rows.seeds is None:
        weights = drop_values(weights, dropout.p)
    else:
        weights = dropout(weights.transpose(1, 2), window.rows, "padded").transpose(1, 2)
    return weights.to(values.dtype) @ values


def additive_scores(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Return v . tanh(q + k): (B, H, T, d), (B, H, K, d), (H, d) -> (B, H, T, K).

    The sums q + k are d times as large as the scores. So they are computed for a few queries at a time, and computed
    again in the backward pass instead of being kept.
    """
    step = max(1, ADDITIVE_NUMBERS // max(1, keys.numel()))
    if step >= queries.shape[2]:
        return _additive(queries, keys, weight)
    run = partial(checkpoint, _additive, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([run(piece, keys, weight) for piece in torch.split(queries, step, dim=2)], dim=2)


def _additive(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("bhqkd,hd->bhqk", torch.tanh(queries[:, :, :, None] + keys[:, :, None]), weight.to(keys.dtype))


def angles(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return angles position / 10000^(2 i / size) in radians, (...) -> (..., size / 2) (Vaswani et al. 2017, sec. 3.5).

    They are in at least float32, whatever the `dtype` of the vectors, since bfloat16 cannot count beyond 256.
    """
    exact = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device, dtype=exact) * (-math.log(10_000.0) / size))
    return positions.to(exact)[..., None] * rates


def sinusoids(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return alternating sines and cosines of `angles`, (...) -> (..., size)."""
    turns = angles(positions, size, dtype)
    return torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(-2).to(dtype)


def rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotate each pair of adjacent features by its angle: (..., T, d), (T, d / 2) -> (..., T, d).

    The product of a rotated query and key depends only on the distance of their positions (Su et al. 2021, eq. 34).
    """
    first, second = vectors[..., 0::2], vectors[..., 1::2]
    sine, cosine = turns.sin(), turns.cos()
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-2).to(vectors.dtype)
