"""GRU and tanh RNN over all rows of a batch, with hand-written gradients, for CPUs, where torch has no fused kernel.

Tokens are in time-major order, as in a `PackedSequence`: every row's first token, longest row first, then every second
token, and so on. Each step runs over the rows that have not ended, so there is no padding. Autograd sees one node for
the whole sequence instead of several for each step. All inputs take one matrix product, as does the gradient of each
weight; a step itself is one small product and some in-place arithmetic. The equations are those of
`runner.layers.recurrent.cells`.

Shapes: N tokens, R rows, D inputs, H hidden units; the weights are torch's: w (GH, D), u (GH, H), b and c (GH,), where
G is 3 for the GRU (reset, update, candidate) and 1 for the tanh RNN. A second derivative is a RuntimeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.profiler import record_function

from runner.layers.autograd import Context, apply

_ATEN = torch.ops.aten
Gradients = tuple[Tensor | None, ...]


def run_unrolled(mode: str, inputs: Tensor, weights: Sequence[Tensor], start: Tensor, running: list[int]) -> Tensor:
    """Return the hidden states (N, H) for time-major inputs (N, D), by one of the `UNROLLED` modes of torch's modules.

    The weights are w, u, b, c, `start` (R, H) the states before the first step, longest row first, and `running` the
    number of rows that have not ended at each step.
    """
    with record_function(f"unrolled {mode}"):
        return apply(UNROLLED[mode], inputs, *weights, start, running)


class _Context(Context, Protocol):
    running: list[int]


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor, start: Tensor, running: list[int]
    ) -> Tensor:
        # Forward, for one step:  r, z = sigmoid(sums of x and h);  m = U_n h + c_n;  n = tanh(W_n x + b_n + r m);
        # h' = lerp(n, h, z). The contributions of x are computed here for all tokens. The rows of `gates` start as the
        # sums without the hidden state, so that a step adds `h u'` to r, z and m in a single product in place, then
        # turns the first two into gates. Only n is kept apart, since r multiplies m but not the input's part of the
        # candidate.
        size = u.shape[1]
        two = 2 * size
        gates = x.new_empty(len(x), 3 * size)  # r, z, m
        reset_update, m = gates[:, :two], gates[:, two:]
        torch.addmm(b[:two] + c[:two], x, w[:two].t(), out=reset_update)
        m.copy_(c[two:])
        n = torch.addmm(b[two:], x, w[two:].t())
        h = x.new_empty(len(x), size)
        from_hidden = u.t().contiguous()
        parts = (gates, reset_update, gates[:, :size], gates[:, size:two], m, n, h)
        steps = [torch.split(part, running) for part in parts]
        for old, sums, r_z, r, z, inner, new, out in zip(_previous(start, steps[-1], running), *steps, strict=True):
            sums.addmm_(old, from_hidden)
            torch.sigmoid(r_z, out=r_z)
            new.addcmul_(r, inner).tanh_()
            torch.lerp(new, old, z, out=out)
        ctx.save_for_backward(x, w, u, start, gates, n, h)
        ctx.running = running
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> Gradients:
        x, w, u, start, gates, n, h = ctx.saved_tensors
        r, z, m = gates.chunk(3, dim=1)
        # From h' = n + z (h - n), the derivatives of h' by the sums inside r, z and n (elementwise, so vectors) depend
        # only on saved values. They are computed for all tokens at once; the sequential part then merely multiplies
        # them by the gradient of h' and propagates the result to the previous state.
        by_n = _ATEN.tanh_backward(1.0 - z, n)
        sums = x.new_empty(len(x), 3, u.shape[1])
        by_r, by_z, by_m = sums.unbind(1)
        _ATEN.sigmoid_backward(by_n * m, r, grad_input=by_r)
        _ATEN.sigmoid_backward(_states(start, h, ctx.running).sub_(n), z, grad_input=by_z)
        torch.mul(by_n, r, out=by_m)
        grad, grad_start = grad.clone(memory_format=torch.contiguous_format), torch.zeros_like(start)
        _step_back(grad, grad_start, sums, z, u, ctx.running)
        flat = sums.flatten(1)
        grad.mul_(by_n)
        del by_n  # memory peaks here
        grad_u, grad_c = flat.t() @ _states(start, h, ctx.running), flat.sum(0)
        # u and c enter the candidate through r m, but w and b enter it directly: replace that third of the gradients
        by_m.copy_(grad)
        grad_x = flat @ w if ctx.needs_input_grad[0] else None
        return grad_x, flat.t() @ x, grad_u, flat.sum(0), grad_c, grad_start, None


def _step_back(grad: Tensor, grad_start: Tensor, sums: Tensor, z: Tensor, u: Tensor, running: list[int]) -> None:
    """Run the steps of a GRU's backward pass from last to first, in place.

    Args:
        grad: (N, H) gradient of each state as an output; becomes its total gradient, through later states too.
        grad_start: (R, H) zeros; becomes the gradient of the states before the first step.
        sums: (N, 3, H) derivatives of each state by the sums inside r, z and m; becomes the gradient of those sums.
        z: (N, H) update gates.
    """
    previous = _previous(grad_start, torch.split(grad, running), running)
    parts = (grad[:, None], grad, z, sums, sums.flatten(1))
    steps = [torch.split(part, running) for part in parts]
    # a state reaches its successor directly, with weight z, and through the three sums, by u
    for old, wide, new, gate, sum_grads, flat in zip(*(reversed(part) for part in (previous, *steps)), strict=True):
        sum_grads.mul_(wide)
        old.addcmul_(new, gate).addmm_(flat, u)


class _TanhRnn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor, start: Tensor, running: list[int]
    ) -> Tensor:
        # h holds the inputs' part of every sum first; a step adds the previous state's part and turns it into a state
        h = torch.addmm(b + c, x, w.t())
        from_hidden, steps = u.t().contiguous(), torch.split(h, running)
        for old, new in zip(_previous(start, steps, running), steps, strict=True):
            new.addmm_(old, from_hidden).tanh_()
        ctx.save_for_backward(x, w, u, start, h)
        ctx.running = running
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> Gradients:
        x, w, u, start, h = ctx.saved_tensors
        # `sums` starts as the gradient of the outputs; a step multiplies its part by tanh' = 1 - h^2, which makes it
        # the gradient of the sum inside tanh, and adds that to the gradient of the previous state
        sums, grad_start = grad.clone(memory_format=torch.contiguous_format), torch.zeros_like(start)
        steps = torch.split(sums, ctx.running)
        previous = _previous(grad_start, steps, ctx.running)
        slopes = torch.split(torch.addcmul(h.new_ones(()), h, h, value=-1.0), ctx.running)
        for old, new, slope in zip(*(reversed(part) for part in (previous, steps, slopes)), strict=True):
            old.addmm_(new.mul_(slope), u)
        del slopes, slope  # memory peaks here
        grad_u = sums.t() @ _states(start, h, ctx.running)
        grad_b = sums.sum(0)
        grad_x = sums @ w if ctx.needs_input_grad[0] else None
        return grad_x, sums.t() @ x, grad_u, grad_b, grad_b.clone(), grad_start, None


UNROLLED: dict[str, type[torch.autograd.Function]] = {"GRU": _Gru, "RNN_TANH": _TanhRnn}


def _previous(start: Tensor, steps: Sequence[Tensor], running: list[int]) -> list[Tensor]:
    """Return for each step the rows of the step before (at first `start`) that have not ended: views, no copies."""
    pairs = zip((start, *steps), (len(start), *running), running, strict=False)
    return [step if before == now else step[:now] for step, before, now in pairs]


def _states(start: Tensor, h: Tensor, running: list[int]) -> Tensor:
    """Return the state before each step, (N, H)."""
    return torch.cat(_previous(start, torch.split(h, running), running))
