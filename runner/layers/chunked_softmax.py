"""Cross entropy over a vocabulary, chunk by chunk: the (N, V) matrix of scores never exists as a whole.

Shapes: N tokens, D numbers a vector, V strings of the vocabulary, C tokens a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Precision = Literal["same", "bfloat16"]


@runtime_checkable
class Chunked(Protocol):
    """A module that works on `chunk` tokens at a time, so that its memory does not grow with the batch."""

    chunk: int


def vocabulary_scores(vectors: Tensor, weight: Tensor, bias: Tensor, precision: Precision) -> Tensor:
    """(C, D) vectors, (V, D) weight, (V,) bias -> (C, V) scores; in bfloat16, or in the vectors' own precision."""
    dtype = torch.bfloat16 if precision == "bfloat16" else vectors.dtype
    return F.linear(vectors.to(dtype), weight.to(dtype), bias.to(dtype))


def chunks_of(count: int, chunk: int) -> Iterator[slice]:
    """Slices of `chunk` that cover `count`; one empty slice where there is nothing, so that shapes are kept."""
    for start in range(0, max(1, count), chunk):
        yield slice(start, start + chunk)


def vocabulary_nll(
    vectors: Tensor, weight: Tensor, bias: Tensor, right: Tensor, chunk: int, precision: Precision
) -> Tensor:
    """(N,) -log softmax(vectors weight' + bias) at the `right` answers (N,), in nats and in float32 at least.

    Its gradient recomputes the scores of one chunk at a time.
    """

    def of_chunk(some: Tensor, answers: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        scores = vocabulary_scores(some, weight, bias, precision)
        return F.cross_entropy(scores.to(_exact(scores.dtype)), answers, reduction="none")

    chunks = [(vectors[place], right[place]) for place in chunks_of(len(vectors), chunk)]
    if not torch.is_grad_enabled():
        return torch.cat([of_chunk(some, answers, weight, bias) for some, answers in chunks])
    return torch.cat(
        [
            cast(Tensor, checkpoint(of_chunk, some, answers, weight, bias, use_reentrant=False))
            for some, answers in chunks
        ]
    )


def vocabulary_loss(
    vectors: Tensor, weight: Tensor, bias: Tensor, right: Tensor, chunk: int, precision: Precision
) -> Tensor:
    """() the sum of `vocabulary_nll`, whose gradients are made in the same pass, while a chunk's scores are at hand.

    For training: three matrix products and four passes over the scores. It has no second derivative.
    """
    if not torch.is_grad_enabled() or not (vectors.requires_grad or weight.requires_grad or bias.requires_grad):
        return vocabulary_nll(vectors, weight, bias, right, chunk, precision).sum()
    total: Tensor = _Loss.apply(vectors, weight, bias, right, chunk, precision)  # type: ignore[no-untyped-call]
    return total


class _Loss(torch.autograd.Function):
    """With e = exp(score - largest score) and s = sum of e over the vocabulary: loss = log s + largest - right score.

    Its gradient by a score is e / s, less 1 at the right answer. Dividing by s is left to the narrow factors of both
    products, (e w) / s and e' (x / s), and the right answers' ones are taken off at the end, row by row. The bias is
    one more column of w, that of an x of 1: it then takes no pass over the scores, and neither does its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, weight: Tensor, bias: Tensor, right: Tensor, chunk: int, precision: Precision
    ) -> Tensor:
        dtype = torch.bfloat16 if precision == "bfloat16" else vectors.dtype
        exact = _exact(dtype)
        x, w = _extended(vectors, 1.0, dtype), _extended(weight, bias, dtype)
        by_x, by_w = torch.empty_like(x, dtype=exact), torch.empty_like(w)
        total = torch.zeros((), dtype=exact, device=x.device)
        memory = x.new_empty(min(chunk, len(x)), len(w))  # for the scores of one chunk after another
        for place in chunks_of(len(x), chunk):
            some, answers = x[place], right[place]
            scores = torch.mm(some, w.t(), out=memory[: len(some)])
            highest = scores.amax(dim=1, keepdim=True)
            at_right = scores.gather(1, answers[:, None])
            e = scores.sub_(highest).exp_()
            s = e.sum(dim=1, keepdim=True).to(exact)
            total += (s.log() + highest.to(exact) - at_right.to(exact)).sum()
            by_x[place] = (e @ w).to(exact) / s - w.index_select(0, answers).to(exact)
            # the first product is written over what lies there
            by_w.addmm_(e.t(), (some.to(exact) / s).to(dtype), beta=float(place.start > 0))
        by_w.index_add_(0, right, x, alpha=-1)
        ctx.save_for_backward(by_x, by_w)
        ctx.dtypes = vectors.dtype, weight.dtype, bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_x, by_w = ctx.saved_tensors
        parts = (by_x[:, :-1], by_w[:, :-1], by_w[:, -1])  # the ones' own gradient is not asked for
        scaled = [torch.mul(part.to(dtype), gradient) for part, dtype in zip(parts, ctx.dtypes, strict=True)]
        return scaled[0], scaled[1], scaled[2], None, None, None


def _extended(matrix: Tensor, column: Tensor | float, dtype: torch.dtype) -> Tensor:
    """(M, D) and one more column -> (M, D + 1)."""
    wide = matrix.new_empty(len(matrix), matrix.shape[1] + 1, dtype=dtype)
    wide[:, :-1] = matrix
    wide[:, -1] = column
    return wide


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
