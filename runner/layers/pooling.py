"""Pooling: rows of token vectors (length, D) -> one vector per row (B, D); and hidden layers for such vectors.

Empty rows give 0 in either layout. Padding is replaced by selection before it is used, so nothing leaks from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from runner.layers.autograd import Context, apply
from runner.layers.dropout import Dropout
from runner.layers.moves import pack_tokens
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

Pooling = Literal["mean", "max", "min", "sum", "sqrt", "unit_sum", "last", "first", "attention"]


def sum_pool(x: Ragged) -> Tensor:
    """Sum each feature over each row, in at least float32, since `index_add` in bf16 would round at every token."""
    wide = torch.promote_types(x.values.dtype, torch.float32)
    if x.layout == "padded":
        return x.filled(0.0).sum(dim=1, dtype=wide)
    zeros = x.values.new_zeros(x.rows.n_rows, *x.values.shape[1:], dtype=wide)
    return zeros.index_add(0, x.rows.row, x.values.to(wide))


def mean_pool(x: Ragged) -> Tensor:
    """Average each feature over each row, in at least float32."""
    return sum_pool(x) / x.lengths.clamp(min=1)[:, None]


def sqrt_pool(x: Ragged) -> Tensor:
    """Divide the sum of each feature by the square root of the row's length; its scale hardly depends on the length."""
    return sum_pool(x) / x.lengths.clamp(min=1).sqrt()[:, None]


def unit_sum_pool(x: Ragged) -> Tensor:
    """Sum each feature and scale the vector to norm 1; a zero vector stays zero."""
    summed = sum_pool(x)
    norm: Tensor = torch.linalg.vector_norm(summed, dim=1, keepdim=True)
    return summed / norm.masked_fill(norm == 0, 1.0)


def max_pool(x: Ragged) -> Tensor:
    """Return the largest value of each feature over each row; ties share the gradient."""
    return _extreme(x, -torch.inf)


def min_pool(x: Ragged) -> Tensor:
    """Return the smallest value of each feature over each row; ties share the gradient."""
    return _extreme(x, torch.inf)


def _extreme(x: Ragged, worst: float) -> Tensor:
    if x.layout == "padded" and not x.prefers_packed:
        return padded_extreme(x, worst)
    return apply(_Extreme, pack_tokens(x), x.rows, worst)


def padded_extreme(x: Ragged, worst: float) -> Tensor:
    """Return the largest values of padded rows (`worst` is -inf) or the smallest (inf). Packed is faster on a CPU."""
    filled = x.filled(worst)
    pooled = filled.amax(dim=1) if worst < 0 else filled.amin(dim=1)
    return pooled.masked_fill((x.lengths == 0)[:, None], 0.0)


def _reduce_rows(values: Tensor, rows: Rows, reduce: str, start: float) -> Tensor:
    """Reduce the tokens of each row, (N, D) -> (B, D), from the initial value `start`."""
    initial = values.new_full((rows.n_rows, *values.shape[1:]), start)
    return initial.scatter_reduce(0, rows.row[:, None].expand_as(values), values, reduce)


class _Context(Context, Protocol):
    rows: Rows


class _Extreme(torch.autograd.Function):
    """The largest or smallest value, (N, D) -> (B, D). The gradient of `scatter_reduce` is 6 times slower on a CPU."""

    @staticmethod
    def forward(ctx: _Context, values: Tensor, rows: Rows, worst: float) -> Tensor:
        pooled = _reduce_rows(values, rows, "amax" if worst < 0 else "amin", worst)
        ctx.save_for_backward(values, pooled)
        ctx.rows = rows
        return pooled.masked_fill((rows.lengths == 0)[:, None], 0.0)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        values, pooled = ctx.saved_tensors
        row = ctx.rows.row
        is_extreme = (values == pooled.index_select(0, row)).to(values.dtype)
        share = grads[0] / _reduce_rows(is_extreme, ctx.rows, "sum", 0.0).clamp(min=1.0)
        return is_extreme.mul_(share.index_select(0, row)), None, None


def first_pool(x: Ragged) -> Tensor:
    """Return the first token of each row."""
    return _token_at(x, torch.zeros_like(x.lengths))


def last_pool(x: Ragged) -> Tensor:
    """Return the last real token of each row, never the end of the padded row."""
    return _token_at(x, x.lengths - 1)


def _token_at(x: Ragged, position: Tensor) -> Tensor:
    """Return the token at `position` (B,) of each row, and 0 for empty rows."""
    # the places of empty rows are clamped to an existing one, whose value is then masked
    empty = (x.lengths == 0)[:, None]
    n_places = x.values.shape[0] if x.layout == "packed" else x.rows.n_rows * x.rows.width
    if n_places == 0:
        return x.values.new_zeros(x.rows.n_rows, *x.values.shape[1:])
    if x.layout == "packed":
        starts, values = x.rows.offsets[:-1], x.values
    else:
        starts, values = torch.arange(x.rows.n_rows, device=x.values.device) * x.rows.width, x.filled(0.0).flatten(0, 1)
    places = (starts + position).clamp(0, n_places - 1)
    return values.index_select(0, places).masked_fill(empty, 0.0)


class AttentionPool(nn.Module):
    """The mean of each row's tokens, weighted by softmax(v . tanh(W x)) within the row (Yang et al. 2016, eq. 5-7)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.query = nn.Linear(size, 1, bias=False)

    def forward(self, x: Ragged) -> Tensor:
        """Pool rows of (length, D) to (B, D)."""
        x = x.with_values(x.filled(0.0))
        scores = x.map(lambda values: self.query(torch.tanh(self.hidden(values))))
        # subtracting the largest score of each row does not change the softmax and keeps exp in range
        highest = max_pool(scores.map(Tensor.detach))
        shift = highest.index_select(0, x.rows.row) if x.layout == "packed" else highest[:, None, :]
        weights = scores.with_values((scores.values - shift).masked_fill(~x.mask()[..., None], -torch.inf).exp())
        total = sum_pool(weights).masked_fill((x.lengths == 0)[:, None], 1.0)
        return sum_pool(x.with_values(x.values * weights.values)) / total


_FUNCTIONS: dict[str, Callable[[Ragged], Tensor]] = {
    "mean": mean_pool,
    "max": max_pool,
    "min": min_pool,
    "sum": sum_pool,
    "sqrt": sqrt_pool,
    "unit_sum": unit_sum_pool,
    "last": last_pool,
    "first": first_pool,
}


def pooling(name: Pooling, size: int) -> Callable[[Ragged], Tensor]:
    """Return the pooling called `name` for token vectors of `size`; `attention` is a module with parameters."""
    return AttentionPool(size) if name == "attention" else _FUNCTIONS[name]


class PairPool(nn.Module):
    """Pooling of both texts of each pair to u and v, and their combination [u, v, |u - v|, u * v].

    The combination is that of InferSent (Conneau et al. 2017, section 3.1).

    Args:
        pool: pooling of a text, rows of (length, D) -> (2B, D).
    """

    TIMES = 4  # as many components as a pooled text

    def __init__(self, pool: Callable[[Ragged], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Ragged) -> Tensor:
        """Pool 2B rows of (length, D), of which pairs are neighbours, to (B, 4D)."""
        pooled = self.pool(x)
        u, v = pooled[0::2], pooled[1::2]
        return torch.cat([u, v, (u - v).abs(), u * v], dim=1)


class Mlp(nn.Module):
    """A multilayer perceptron: dropout, then a linear layer, ReLU and dropout for each size ([]: dropout only)."""

    def __init__(self, input_size: int, sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        widths = [input_size, *sizes]
        self.linears = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in widths)
        self.output_size = widths[-1]

    def forward(self, vectors: Tensor, single: Rows) -> Tensor:
        """Map vectors (B, D) to (B, output_size). `single` has one place per row (`Rows.single`)."""
        first, *others = self.dropouts
        vectors = first(vectors, single, "packed")
        for linear, dropout in zip(self.linears, others, strict=True):
            vectors = dropout(torch.relu(linear(vectors)), single, "packed")
        return vectors
