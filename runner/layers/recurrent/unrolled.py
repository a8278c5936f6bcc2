"""GRU and tanh RNN over all rows of a batch, with their gradients written out: for CPUs, where torch fuses neither.

Tokens lie in time-major order, as in a `PackedSequence`: every row's first token, longest row first, then every second
token, and so on. Each step runs over the rows that have not ended, so there is no padding; and neither steps nor their
gradients are nodes of autograd. Inputs take one product for all tokens, as does the gradient of each weight; what is
left of a step is a product and work in place. The equations are those of `runner.layers.recurrent.cells`.

Shapes: N tokens, R rows, D inputs, H hidden; weights are torch's: w (GH, D), u (GH, H), b and c (GH,), for G gates.
There is no second derivative: asking for one is torch's RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.profiler import record_function

_ATEN: Any = torch.ops.aten
Gradients = tuple[Tensor | None, ...]


def unrolled(mode: str, inputs: Tensor, weights: Sequence[Tensor], begin: Tensor, running: list[int]) -> Tensor:
    """Hidden states (N, H) of time-major inputs (N, D).

    Args:
        mode: of torch's module, one of `UNROLLED`.
        weights: w, u, b, c.
        begin: (R, H) the states before the first step, longest row first.
        running: how many rows have not ended at each step; R at the first.
    """
    with record_function(f"unrolled {mode}"):
        hidden: Tensor = UNROLLED[mode](inputs, *weights, begin, running)
    return hidden


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor, begin: Tensor, running: list[int]
    ) -> Tensor:
        size = u.shape[1]
        two = 2 * size
        gates = x.new_empty(len(x), 3 * size)  # r, z, and what r multiplies
        opening, inner = gates[:, :two], gates[:, two:]
        torch.addmm(b[:two] + c[:two], x, w[:two].t(), out=opening)
        inner.copy_(c[two:])
        n = torch.addmm(b[two:], x, w[two:].t())
        h = x.new_empty(len(x), size)
        from_hidden = u.t().contiguous()
        parts = (gates, opening, gates[:, :size], gates[:, size:two], inner, n, h)
        blocks = [torch.split(one, running) for one in parts]
        for old, sums, open_, r, z, m, new, out in zip(_before(begin, blocks[-1], running), *blocks, strict=True):
            sums.addmm_(old, from_hidden)
            torch.sigmoid(open_, out=open_)
            new.addcmul_(r, m).tanh_()
            torch.lerp(new, old, z, out=out)
        ctx.save_for_backward(x, w, u, begin, gates, n, h)
        ctx.running = running
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, w, u, begin, gates, n, h = ctx.saved_tensors
        r, z, inner = gates.chunk(3, dim=1)
        # by h' = n + z (h - n), what one of h' brings to the sums in the gates; step by step, times the gradient of h'
        by_n = _ATEN.tanh_backward(1.0 - z, n)
        sums = x.new_empty(len(x), 3, u.shape[1])
        by_r, by_z, by_inner = sums.unbind(1)
        _ATEN.sigmoid_backward(by_n * inner, r, grad_input=by_r)
        _ATEN.sigmoid_backward(_states(begin, h, ctx.running).sub_(n), z, grad_input=by_z)
        torch.mul(by_n, r, out=by_inner)
        grad, grad_begin = grad.clone(memory_format=torch.contiguous_format), torch.zeros_like(begin)
        _steps_back(grad, grad_begin, sums, z, u, ctx.running)
        flat = sums.flatten(1)
        grad.mul_(by_n)
        del by_n  # here memory is at its most
        grad_u, grad_c = flat.t() @ _states(begin, h, ctx.running), flat.sum(0)
        by_inner.copy_(grad)  # what inputs bring is not multiplied by r
        grad_x = flat @ w if ctx.needs_input_grad[0] else None
        return grad_x, flat.t() @ x, grad_u, flat.sum(0), grad_c, grad_begin, None


def _steps_back(grad: Tensor, grad_begin: Tensor, sums: Tensor, z: Tensor, u: Tensor, running: list[int]) -> None:
    """A GRU's steps from last to first, in place.

    Args:
        grad: (N, H) of each state as what follows reads it; becomes that of all that comes of the state.
        grad_begin: (R, H) zeros; becomes the gradient of the states before the first step.
        sums: (N, 3, H) what one of a state brings to its gates' sums; becomes the gradient of those.
    """
    earlier = _before(grad_begin, torch.split(grad, running), running)
    parts = (grad[:, None], grad, z, sums, sums.flatten(1))
    blocks = [torch.split(one, running) for one in parts]
    for old, wide, new, kept, each, both in zip(*(reversed(one) for one in (earlier, *blocks)), strict=True):
        each.mul_(wide)
        old.addcmul_(new, kept).addmm_(both, u)


class _TanhRnn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor, begin: Tensor, running: list[int]
    ) -> Tensor:
        h = torch.addmm(b + c, x, w.t())
        from_hidden, steps = u.t().contiguous(), torch.split(h, running)
        for old, new in zip(_before(begin, steps, running), steps, strict=True):
            new.addmm_(old, from_hidden).tanh_()
        ctx.save_for_backward(x, w, u, begin, h)
        ctx.running = running
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, w, u, begin, h = ctx.saved_tensors
        sums, grad_begin = grad.clone(memory_format=torch.contiguous_format), torch.zeros_like(begin)
        steps = torch.split(sums, ctx.running)
        earlier = _before(grad_begin, steps, ctx.running)
        slopes = torch.split(torch.addcmul(h.new_ones(()), h, h, value=-1.0), ctx.running)  # 1 - h^2
        for old, new, slope in zip(*(reversed(one) for one in (earlier, steps, slopes)), strict=True):
            old.addmm_(new.mul_(slope), u)
        del slopes, slope  # here memory is at its most
        grad_u = sums.t() @ _states(begin, h, ctx.running)
        grad_b = sums.sum(0)
        grad_x = sums @ w if ctx.needs_input_grad[0] else None
        return grad_x, sums.t() @ x, grad_u, grad_b, grad_b.clone(), grad_begin, None


UNROLLED: dict[str, Callable[..., Tensor]] = {"GRU": _Gru.apply, "RNN_TANH": _TanhRnn.apply}


def _before(begin: Tensor, steps: Sequence[Tensor], running: list[int]) -> list[Tensor]:
    """Of each step the rows of the one before that have not ended; of the first step `begin`."""
    earlier = zip((begin, *steps), (len(begin), *running), running, strict=False)
    return [one if before == now else one[:now] for one, before, now in earlier]


def _states(begin: Tensor, h: Tensor, running: list[int]) -> Tensor:
    """(N, H) the state before each step."""
    return torch.cat(_before(begin, torch.split(h, running), running))
