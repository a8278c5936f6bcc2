"""Cross entropy over a vocabulary in chunks of tokens, so that the full (N, V) matrix of scores never exists.

Two implementations: `vocabulary_nll` gives the loss of each token and lets autograd recompute the scores of a chunk in
the backward pass; `vocabulary_loss` gives the sum, for training, and computes the gradients together with it.

Shapes: N tokens, D the size of a vector, V strings in the vocabulary, C tokens in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from runner.layers.autograd import Context, apply

Precision = Literal["same", "bfloat16"]


@runtime_checkable
class Chunked(Protocol):
    """A module that processes `chunk` tokens at a time, so that its memory does not grow with the batch."""

    chunk: int


def vocabulary_scores(vectors: Tensor, weight: Tensor, bias: Tensor, precision: Precision) -> Tensor:
    """Return scores (C, V) for vectors (C, D), weight (V, D) and bias (V,), in bfloat16 or the vectors' own dtype."""
    dtype = torch.bfloat16 if precision == "bfloat16" else vectors.dtype
    return F.linear(vectors.to(dtype), weight.to(dtype), bias.to(dtype))


def chunk_slices(count: int, chunk: int) -> Iterator[slice]:
    """Yield slices of length `chunk` that cover `count`; if `count` is 0, one empty slice, which preserves shapes."""
    for start in range(0, max(1, count), chunk):
        yield slice(start, start + chunk)


def vocabulary_nll(
    vectors: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int, precision: Precision
) -> Tensor:
    """Return -log softmax(vectors weight' + bias) at the `targets` (N,) in nats, (N,) in at least float32.

    The backward pass recomputes the scores of one chunk at a time.
    """

    def chunk_nll(x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        scores = vocabulary_scores(x, weight, bias, precision)
        return F.cross_entropy(scores.to(_loss_dtype(scores.dtype)), ids, reduction="none")

    chunks = [(vectors[place], targets[place]) for place in chunk_slices(len(vectors), chunk)]
    if not torch.is_grad_enabled():
        return torch.cat([chunk_nll(x, ids, weight, bias) for x, ids in chunks])
    losses: list[Tensor] = [checkpoint(chunk_nll, x, ids, weight, bias, use_reentrant=False) for x, ids in chunks]
    return torch.cat(losses)


def vocabulary_loss(
    vectors: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int, precision: Precision
) -> Tensor:
    """Return the sum of `vocabulary_nll`, a scalar; the forward pass computes the gradients too.

    For training: a chunk's scores are computed once and used for loss and gradients, in three matrix products and four
    passes over the scores. There is no second derivative.
    """
    if not torch.is_grad_enabled() or not (vectors.requires_grad or weight.requires_grad or bias.requires_grad):
        return vocabulary_nll(vectors, weight, bias, targets, chunk, precision).sum()
    return apply(_SummedLoss, vectors, weight, bias, targets, chunk, precision)


class _Context(Context, Protocol):
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype]  # dtypes of vectors, weight and bias


class _SummedLoss(torch.autograd.Function):
    """The summed loss log s + largest - correct score, with e = exp(score - largest score) and s = the sum of e."""

    # The gradient with respect to a score is softmax - 1 at the correct id and softmax elsewhere, where the softmax is
    # e / s. Nearly all time goes into passes over the wide matrix of scores (C, V), so whatever can be done on the
    # narrow matrices (C, D) and (V, D) is done there:
    # - the division by s is applied to narrow factors of both products: (e w) / s and e' (x / s);
    # - the 1 at correct ids is subtracted from the products, one row of w or x for each token;
    # - the bias is one more column of w, with a column of ones in x, so it costs no pass of its own.

    @staticmethod
    def forward(
        ctx: _Context, vectors: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int, precision: Precision
    ) -> Tensor:
        dtype = torch.bfloat16 if precision == "bfloat16" else vectors.dtype
        exact = _loss_dtype(dtype)
        x, w = _extended(vectors, 1.0, dtype), _extended(weight, bias, dtype)
        by_x, by_w = torch.empty_like(x, dtype=exact), torch.empty_like(w)
        total = torch.zeros((), dtype=exact, device=x.device)
        buffer = x.new_empty(min(chunk, len(x)), len(w))  # holds the scores of one chunk after the other
        for place in chunk_slices(len(x), chunk):
            part, ids = x[place], targets[place]
            scores = torch.mm(part, w.t(), out=buffer[: len(part)])
            highest = scores.amax(dim=1, keepdim=True)
            correct = scores.gather(1, ids[:, None])
            e = scores.sub_(highest).exp_()
            s = e.sum(dim=1, keepdim=True).to(exact)
            total += (s.log() + highest.to(exact) - correct.to(exact)).sum()
            by_x[place] = (e @ w).to(exact) / s - w.index_select(0, ids).to(exact)
            # beta is 0 for the first chunk: by_w is uninitialised
            by_w.addmm_(e.t(), (part.to(exact) / s).to(dtype), beta=float(place.start > 0))
        by_w.index_add_(0, targets, x, alpha=-1)
        ctx.save_for_backward(by_x, by_w)
        ctx.dtypes = vectors.dtype, weight.dtype, bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_x, by_w = ctx.saved_tensors
        parts = (by_x[:, :-1], by_w[:, :-1], by_w[:, -1])  # without the gradient of the column of ones
        scaled = (torch.mul(part.to(dtype), gradient) for part, dtype in zip(parts, ctx.dtypes, strict=True))
        return *scaled, None, None, None


def _extended(matrix: Tensor, column: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Append a column to a matrix: (M, D) -> (M, D + 1)."""
    extended = matrix.new_empty(len(matrix), matrix.shape[1] + 1, dtype=dtype)
    extended[:, :-1] = matrix
    extended[:, -1] = column
    return extended


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
