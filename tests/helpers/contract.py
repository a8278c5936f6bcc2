"""The contract of every layer: packed = padded = one at a time, outputs and gradients, whatever stands in padding.

`check_contract` runs a layer in float64 on random rows (empty ones, of one token, and long ones among them), which
bring seeds for their dropout. The slow, obvious reference is each row by itself; gradients of the parameters are
summed over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows

LENGTHS: tuple[tuple[int, ...], ...] = ((5, 0, 1, 3, 7), (4, 4, 4), (6,), (0, 0), (1, 2, 0, 9, 1, 3))
POISON = (0.0, 1e30, float("nan"))
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "is_nonzero", "equal")
CPU = torch.device("cpu")
Layer = Callable[[Ragged], Any]


def rows_of(lengths: Sequence[int], widen: int = 1, device: torch.device = CPU) -> Rows:
    return Rows(np.array(lengths, dtype=np.int64), device, width=max(1, max(lengths)) * widen)


def lay_out(
    tokens: Tensor, lengths: Sequence[int], layout: Layout, poison: float, widen: int, first: int = 0
) -> Ragged:
    """(N, D) as Ragged; `poison` stands in every padded place, and rows bring seeds, that of the first one `first`."""
    seeds = torch.arange(first, first + len(lengths), device=tokens.device)
    rows = rows_of(lengths, widen, tokens.device).with_seeds(seeds)
    packed = Ragged(tokens, rows, "packed")
    return packed if layout == "packed" else packed.pad(poison)


def answers(output: Any) -> list[Tensor]:
    """Tensors of an output, one a row: those of a Ragged's real tokens, or the rows of a (B, D) tensor."""
    if isinstance(output, tuple):
        output = output[0]
    if isinstance(output, Ragged):
        return list(output.tokens().split(output.rows.host_lengths.tolist()))
    return list(output)


def outcome(layer: Layer, parameters: list[Tensor], batches: list[Ragged]) -> tuple[list[Tensor], ...]:
    """Outputs by row, gradients of the inputs' tokens, gradients of the parameters summed over the batches.

    Raises:
        AssertionError: padding gets a gradient, which would reach the layers below.
    """
    rows, inputs, weights = [], [], [torch.zeros_like(parameter) for parameter in parameters]
    for x in batches:
        x = x.with_values(x.values.detach().requires_grad_())
        result = answers(layer(x))
        # each number weighs differently, so that gradients cannot agree by symmetry
        total = sum((item * torch.linspace(1, 2, item.shape[-1]).to(item)).sum() for item in result)
        depends = torch.is_tensor(total) and total.requires_grad  # not if all rows are empty
        asked = [x.values, *parameters]
        grads = torch.autograd.grad(total, asked, allow_unused=True) if depends else [None] * len(asked)
        first, *others = [torch.zeros_like(item) if g is None else g for item, g in zip(asked, grads, strict=True)]
        assert x.layout == "packed" or not first[~x.rows.mask].any(), "padding gets a gradient"
        for place, grad in enumerate(others):
            weights[place] += grad
        rows += [item.detach() for item in result]
        inputs.append(x.with_values(first).tokens())
    return rows, [torch.cat(inputs)], weights


def check_contract(
    layer: Layer, size: int, parameters: Sequence[Tensor] = (), atol: float = 1e-10, device: torch.device = CPU
) -> None:
    """Raise AssertionError where an answer depends on layout, neighbours, width or what stands in padding.

    Args:
        layer: Ragged of (length, size) -> Ragged, (Ragged, state) or (B, D); in float64.
        size: D of its input.
        parameters: whose gradients are compared too.
        device: where they and the rows lie.
    """
    weights = list(parameters)
    for number, lengths in enumerate(LENGTHS):
        torch.manual_seed(number)
        tokens = torch.randn(sum(lengths), size, dtype=torch.float64).to(device)
        alone = tokens.split(list(lengths))
        one_by_one = [lay_out(item, [len(item)], "packed", 0.0, 1, place) for place, item in enumerate(alone)]
        reference = outcome(layer, weights, one_by_one)
        cases: list[tuple[Layout, float, int]] = [("packed", 0.0, 1)]
        cases += [("padded", poison, widen) for poison in POISON for widen in (1, 4)]
        for case in cases:
            got = outcome(layer, weights, [lay_out(tokens, lengths, *case)])
            for what, mine, theirs in zip(("output", "input grad", "weight grad"), got, reference, strict=True):
                assert len(mine) == len(theirs)
                for a, b in zip(mine, theirs, strict=True):
                    message = f"{what} differs: lengths {lengths}, layout, poison, widening {case}"
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=atol, msg=lambda m, t=message: f"{t}\n{m}")


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU would be waited for: where a number leaves the device, or a shape depends on values.

    Args:
        on_host: tensors that lie on the host whatever the device; what is computed from them alone does too.
    """

    def __init__(self, on_host: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.on_host = list(on_host)  # held, so that no other tensor gets their id

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        known = {id(item) for item in self.on_host}
        free = bool(tensors) and all(id(tensor) in known for tensor in tensors)
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if not free and (by_mask or name in WAITING):
            raise AssertionError(f"{name} waits for the device")
        result = func(*args, **(kwargs or {}))
        self.on_host += [item for item in tree_leaves(result) if free and isinstance(item, Tensor)]
        return result
