"""Rows of token vectors -> one vector a row: rows of (length, D) -> (B, D). Empty rows give 0, whatever the layout.

What stands in padding is selected away before it is read, so no value and no gradient comes from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from runner.layers.staircase import packed_tokens
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

Pooling = Literal["mean", "max", "min", "sum", "sqrt", "unit_sum", "last", "first", "attention"]


def sum_pool(x: Ragged) -> Tensor:
    """Sum of each feature over each row, in float32 at least: `index_add` would round to bf16 at every token."""
    wide = torch.promote_types(x.values.dtype, torch.float32)
    if x.layout == "padded":
        return x.filled(0.0).sum(dim=1, dtype=wide)
    zeros = x.values.new_zeros(x.rows.n_rows, *x.values.shape[1:], dtype=wide)
    return zeros.index_add(0, x.rows.row, x.values.to(wide))


def mean_pool(x: Ragged) -> Tensor:
    """Mean of each feature over each row, in float32 at least."""
    return sum_pool(x) / x.lengths.clamp(min=1)[:, None]


def sqrt_pool(x: Ragged) -> Tensor:
    """Sum of each feature over the root of the row's length: of about the same size whatever the length."""
    return sum_pool(x) / x.lengths.clamp(min=1).sqrt()[:, None]


def unit_sum_pool(x: Ragged) -> Tensor:
    """Sum of each feature, then the row's vector scaled to norm 1; a sum of zero stays zero."""
    summed = sum_pool(x)
    norm: Tensor = torch.linalg.vector_norm(summed, dim=1, keepdim=True)
    return summed / norm.masked_fill(norm == 0, 1.0)


def max_pool(x: Ragged) -> Tensor:
    """Largest value of each feature over each row; equal largest values share the gradient."""
    return _extreme(x, -torch.inf)


def min_pool(x: Ragged) -> Tensor:
    """Smallest value of each feature over each row; equal smallest values share the gradient."""
    return _extreme(x, torch.inf)


def _extreme(x: Ragged, worst: float) -> Tensor:
    if x.layout == "padded" and x.values.device.type != "cpu":
        return over_rectangle(x, worst)
    pooled: Tensor = _Extreme.apply(packed_tokens(x), x.rows, worst)  # type: ignore[no-untyped-call]
    return pooled


def over_rectangle(x: Ragged, worst: float) -> Tensor:
    """The largest of padded rows, or with a `worst` of infinity the smallest; on a CPU real tokens alone are faster."""
    filled = x.filled(worst)
    pooled = filled.amax(dim=1) if worst < 0 else filled.amin(dim=1)
    return pooled.masked_fill((x.lengths == 0)[:, None], 0.0)


def _scattered(values: Tensor, rows: Rows, reduce: str, start: float) -> Tensor:
    """(N, D) -> (B, D), beginning with `start`."""
    begin = values.new_full((rows.n_rows, *values.shape[1:]), start)
    return begin.scatter_reduce(0, rows.row[:, None].expand_as(values), values, reduce)


class _Extreme(torch.autograd.Function):
    """(N, D), worst value -> (B, D). The gradient of `scatter_reduce` itself takes six times as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Rows, worst: float) -> Tensor:
        pooled = _scattered(values, rows, "amax" if worst < 0 else "amin", worst)
        ctx.save_for_backward(values, pooled)
        ctx.rows = rows
        return pooled.masked_fill((rows.lengths == 0)[:, None], 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        values, pooled = ctx.saved_tensors
        row = ctx.rows.row
        chosen = (values == pooled.index_select(0, row)).to(values.dtype)
        share = grads[0] / _scattered(chosen, ctx.rows, "sum", 0.0).clamp(min=1.0)
        return chosen.mul_(share.index_select(0, row)), None, None


def first_pool(x: Ragged) -> Tensor:
    """The first token of each row."""
    return _pick(x, torch.zeros_like(x.lengths))


def last_pool(x: Ragged) -> Tensor:
    """The last real token of each row, never the padded end."""
    return _pick(x, x.lengths - 1)


def _pick(x: Ragged, position: Tensor) -> Tensor:
    """The token at `position` (B,) of each row; (a place that exists is read for empty rows, and its value dropped)."""
    empty = (x.lengths == 0)[:, None]
    n_places = x.values.shape[0] if x.layout == "packed" else x.rows.n_rows * x.rows.width
    if n_places == 0:
        return x.values.new_zeros(x.rows.n_rows, *x.values.shape[1:])
    if x.layout == "packed":
        starts, values = x.offsets[:-1], x.values
    else:
        starts, values = torch.arange(x.rows.n_rows, device=x.values.device) * x.rows.width, x.filled(0.0).flatten(0, 1)
    places = (starts + position).clamp(0, n_places - 1)
    return values.index_select(0, places).masked_fill(empty, 0.0)


class AttentionPool(nn.Module):
    """Mean of each row's tokens weighted by softmax(v . tanh(W x)) within the row (Yang et al. 2016, eq. 5-7).

    Args:
        size: D, of the tokens and of the hidden layer.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.query = nn.Linear(size, 1, bias=False)

    def forward(self, x: Ragged) -> Tensor:
        """Rows of (length, D) -> (B, D)."""
        x = x.with_values(x.filled(0.0))
        scores = x.map(lambda values: self.query(torch.tanh(self.hidden(values))))
        # a shift within each row changes no weight and keeps exp in range
        highest = max_pool(scores.map(Tensor.detach))
        shift = highest.index_select(0, x.rows.row) if x.layout == "packed" else highest[:, None, :]
        weights = scores.with_values((scores.values - shift).masked_fill(~_real(x), -torch.inf).exp())
        total = sum_pool(weights).masked_fill((x.lengths == 0)[:, None], 1.0)
        return sum_pool(x.with_values(x.values * weights.values)) / total


def _real(x: Ragged) -> Tensor:
    return x.mask().unsqueeze(-1)


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
    """The pooling of that name for token vectors of `size`; `attention` is a module with parameters."""
    return AttentionPool(size) if name == "attention" else _FUNCTIONS[name]
