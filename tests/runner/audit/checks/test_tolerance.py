"""The tolerance for rounding: larger than correct layers need, far smaller than the effect of any bug."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from runner.audit.checks.tolerance import SAFETY, Tolerance, operations, roundoff


@pytest.mark.parametrize("terms", [64, 1000, 30_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reordered_sums_are_within_tolerance_and_errors_are_not(dtype: torch.dtype, terms: int) -> None:
    generator = torch.Generator().manual_seed(terms)
    allowed = Tolerance(roundoff(dtype), terms).of(scale=math.sqrt(terms))
    for _ in range(20):
        numbers = torch.randn(terms, generator=generator, dtype=torch.float64).to(dtype)
        orders = [numbers, numbers.flip(0), numbers[torch.randperm(terms, generator=generator)]]
        sums = [float(order.cumsum(0)[-1]) for order in orders]  # sequential
        assert max(sums) - min(sums) <= allowed
        assert abs(float(numbers[:-1].sum()) - sums[0]) > allowed or abs(float(numbers[-1])) <= 2 * allowed


def test_tolerance_is_roundoff_times_the_root_of_the_operations() -> None:
    assert Tolerance(1e-3, 100).of(scale=2.0) == pytest.approx(SAFETY * 1e-3 * 10 * 2)
    assert Tolerance(1e-3, 100).of(scale=2.0, terms=4) == pytest.approx(2 * Tolerance(1e-3, 100).of(scale=2.0))
    assert Tolerance(0.0, 100).of(scale=2.0, measured=0.5) == pytest.approx(2.0)


def test_units() -> None:
    assert roundoff(torch.float64) == 2.0**-53
    assert roundoff(torch.float32) == roundoff(torch.bfloat16) == roundoff(torch.float16) == 2.0**-24
    assert operations(nn.Sequential(nn.Linear(300, 5), nn.Linear(5, 2)), length=7) == 305 * 7
    assert operations(nn.ReLU(), length=0) == 64
