"""Tolerances: the largest difference that rounding alone explains, from the number of operations and a measured run.

A sum of n numbers, added up in another order, moves by about sqrt(n) u times their size, u being the unit roundoff
(Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.audit.tracing.module_state import unchanged
from runner.audit.tracing.observe import Setting, Subject
from runner.compat.torch import DispatchMode, Operator, tree_leaves

SAFETY = 16.0  # Higham and Mary's lambda; at 16 the bound holds for all numbers of any model together
MEASURED_SAFETY = 4.0  # factor for rounding errors of the same kind, summed in another order


@dataclass(frozen=True)
class Tolerance:
    """The tolerance of one arithmetic."""

    roundoff: float  # unit roundoff u of the arithmetic in which sums are accumulated
    operations: int  # number n of additions that one number of the output depends on

    def of(self, scale: float, measured: float = 0.0, terms: int = 1) -> float:
        """Return the allowed |difference| between numbers of up to `scale`; gradients have `terms` further summands.

        `measured` is the largest error of the single-example runs against float64, where the arithmetic is coarser.
        """
        rounding = self.roundoff * math.sqrt(self.operations * max(1, terms)) * scale
        return MEASURED_SAFETY * measured + SAFETY * rounding


def operations(module: nn.Module, length: int) -> int:
    """Return an upper bound of the chain of additions behind one number of the output, for an example of `length`.

    Every weight matrix sums over its inputs, and a recurrent one does so at each token.
    """
    fan_in = sum(weight[0].numel() for weight in module.parameters() if weight.dim() >= 2 and len(weight))
    return max(64, fan_in) * max(1, length)


def roundoff(dtype: torch.dtype) -> float:
    """Return u of an arithmetic; half precisions accumulate in float32, and their rounding of results is measured."""
    return float(torch.finfo(torch.promote_types(dtype, torch.float32)).eps) / 2


class _Watch(DispatchMode):
    """A context that records the narrowest arithmetic to which any operation reduces float64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.narrowest = torch.float64

    def __torch_dispatch__(
        self, func: Operator, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if not any(tensor.dtype == torch.float64 for tensor in _numbers((args, kwargs))):
            return result  # constants may be created in any arithmetic
        for tensor in _numbers(result):
            if torch.finfo(tensor.dtype).eps > torch.finfo(self.narrowest).eps:
                self.narrowest = tensor.dtype
        return result


def _numbers(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def narrowest(subject: Subject, row: int) -> torch.dtype:
    """Return the narrowest arithmetic used for one example: many models have a float32 softmax or norm inside."""
    with unchanged(subject.module), torch.no_grad(), _Watch() as watch:
        try:
            subject.run([row], Setting())
        except Exception:  # the checks report it
            return torch.float64
    dtype: torch.dtype = watch.narrowest
    return dtype
