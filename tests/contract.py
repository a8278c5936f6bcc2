"""The contract of every layer: packed = padded = one at a time, outputs and gradients, whatever stands in padding.

`check_contract` runs a layer in float64 on random rows (empty ones, of one token, and long ones among them). The slow,
obvious reference is each row by itself; gradients of the parameters are summed over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.ragged import Layout, Ragged, Rows

LENGTHS: tuple[tuple[int, ...], ...] = ((5, 0, 1, 3, 7), (4, 4, 4), (6,), (0, 0), (1, 2, 0, 9, 1, 3))
POISON = (0.0, 1e30, float("nan"))
CPU = torch.device("cpu")
Layer = Callable[[Ragged], Any]


def rows_of(lengths: Sequence[int], widen: int = 1) -> Rows:
    return Rows(np.array(lengths, dtype=np.int64), CPU, width=max(1, max(lengths)) * widen)


def lay_out(tokens: Tensor, lengths: Sequence[int], layout: Layout, poison: float, widen: int) -> Ragged:
    """(N, D) as Ragged; `poison` stands in every padded place."""
    packed = Ragged(tokens, rows_of(lengths, widen), "packed")
    return packed if layout == "packed" else packed.pad(poison)


def answers(output: Any) -> list[Tensor]:
    """Tensors of an output, one a row: those of a Ragged's real tokens, or the rows of a (B, D) tensor."""
    if isinstance(output, tuple):
        output = output[0]
    if isinstance(output, Ragged):
        return list(output.tokens().split(output.rows.host_lengths.tolist()))
    return list(output)


def outcome(layer: Layer, parameters: list[Tensor], batches: list[tuple[Tensor, Ragged]]) -> tuple[list[Tensor], ...]:
    """Outputs by row, gradient of each input, gradients of the parameters summed over the batches."""
    rows, inputs, weights = [], [], [torch.zeros_like(parameter) for parameter in parameters]
    for tokens, x in batches:
        found = answers(layer(x))
        # each number weighs differently, so that gradients cannot agree by symmetry
        total = sum((one * (one.detach() * 0 + torch.linspace(1, 2, one.shape[-1]).to(one))).sum() for one in found)
        depends = torch.is_tensor(total) and total.requires_grad  # not if all rows are empty
        grads = torch.autograd.grad(total, [tokens, *parameters], allow_unused=True) if depends else []
        for place, grad in enumerate(grads[1:]):
            weights[place] += 0 if grad is None else grad
        rows += [one.detach() for one in found]
        inputs.append(torch.zeros_like(tokens) if not grads or grads[0] is None else grads[0])
    return rows, [torch.cat(inputs)], weights


def check_contract(layer: Layer, size: int, parameters: Sequence[Tensor] = (), atol: float = 1e-10) -> None:
    """Raise AssertionError where an answer depends on layout, neighbours, width or what stands in padding.

    Args:
        layer: Ragged of (length, size) -> Ragged, (Ragged, state) or (B, D); in float64.
        size: D of its input.
        parameters: whose gradients are compared too.
    """
    weights = list(parameters)
    for number, lengths in enumerate(LENGTHS):
        torch.manual_seed(number)
        tokens = torch.randn(sum(lengths), size, dtype=torch.float64, requires_grad=True)
        alone = [one.detach().requires_grad_() for one in tokens.split(list(lengths))]
        reference = outcome(layer, weights, [(one, lay_out(one, [len(one)], "packed", 0.0, 1)) for one in alone])
        cases: list[tuple[Layout, float, int]] = [("packed", 0.0, 1)]
        cases += [("padded", poison, widen) for poison in POISON for widen in (1, 4)]
        for case in cases:
            got = outcome(layer, weights, [(tokens, lay_out(tokens, lengths, *case))])
            for what, mine, theirs in zip(("output", "input grad", "weight grad"), got, reference, strict=True):
                assert len(mine) == len(theirs)
                for a, b in zip(mine, theirs, strict=True):
                    message = f"{what} differs: lengths {lengths}, layout, poison, widening {case}"
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=atol, msg=lambda m, t=message: f"{t}\n{m}")
