"""Moves of tokens between places of different layouts, whose gradients are moves as well.

Shapes: N tokens in all, P places, `*` any trailing dimensions.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from runner.layers.autograd import Context, apply
from runner.ragged.ragged import Ragged


def move_places(values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
    """Return `result` with `result[target] = values[source]` and zeros elsewhere: (P, *) -> (size, *).

    Places are distinct, so the gradient is the same move with `source` and `target` exchanged. The gradient of
    `index_select`, which has to allow for repeated places, is a scattered sum and much slower. Without a `source`, all
    values are taken in order; without a `target` they become the first ones, of `size` in all.
    """
    return apply(_Move, values, source, target, size)


def pack_tokens(x: Ragged) -> Tensor:
    """Return the values of real tokens, (N, *), like `Ragged.tokens`, but with the faster gradient of `move_places`."""
    return x.values if x.layout == "packed" else move_places(x.values.flatten(0, 1), x.rows.flat, None, x.rows.n_tokens)


class _Context(Context, Protocol):
    size: int


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
        ctx.save_for_backward(source, target)
        ctx.size = len(values)
        return _move(values, source, target, size)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        source, target = ctx.saved_tensors
        return _move(grads[0], target, source, ctx.size), None, None, None


def _move(values: Tensor, source: Tensor | None, target: Tensor | None, size: int) -> Tensor:
    if source is not None:
        values = values.index_select(0, source)
    if target is None:
        return values
    return values.new_zeros(size, *values.shape[1:]).index_copy_(0, target, values)


def permute(values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Return `values[order]` for a permutation and its inverse: (N, *) -> (N, *).

    The gradient of a permutation is a gather by its inverse; the gradient of `index_select`, which has to allow for
    repeated indices, is a scattered sum and much slower.
    """
    return apply(_Permute, values, order, inverse)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, order)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None
