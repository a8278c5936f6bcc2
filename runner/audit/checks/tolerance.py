"""How far two right answers may lie apart: rounding alone, from the number of operations and a measured run.

A sum of n numbers, added up in another order, moves by about sqrt(n) u times their size, u being the unit roundoff
(Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

SAFETY = 16.0  # Higham and Mary's lambda; at 16 the bound holds for all numbers of any model together
MEASURED_SAFETY = 4.0  # the same rounding, met in another order


@dataclass(frozen=True)
class Tolerance:
    """For one arithmetic.

    Attributes:
        roundoff: u of the arithmetic in which sums are made.
        operations: n, additions behind one number of the output.
    """

    roundoff: float
    operations: int

    def of(self, scale: float, measured: float = 0.0, terms: int = 1) -> float:
        """Allowed |difference|.

        Args:
            scale: largest magnitude among the numbers compared.
            measured: largest error that examples by themselves show against float64, where the arithmetic is coarser.
            terms: further numbers that are added up (gradients over tokens).
        """
        rounding = self.roundoff * math.sqrt(self.operations * max(1, terms)) * scale
        return MEASURED_SAFETY * measured + SAFETY * rounding


def operations(module: nn.Module, length: int) -> int:
    """An upper bound of the additions one after another behind a number of the output, for an example of `length`.

    Every weight matrix adds up its inputs; where it recurs, for each token anew.
    """
    fan_in = sum(one[0].numel() for one in module.parameters() if one.dim() >= 2 and len(one))
    return max(64, fan_in) * max(1, length)


def roundoff(dtype: torch.dtype) -> float:
    """u of an arithmetic; half precisions add up in float32, and their rounding of results is measured."""
    wide = torch.promote_types(dtype, torch.float32)
    return float(torch.finfo(wide).eps) / 2
