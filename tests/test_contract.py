"""The contract finds layers that break it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, check_contract

CONV = nn.Conv1d(3, 3, 3, padding=1).double()
LINEAR = nn.Linear(3, 3).double()


def mean_over_the_width(x: Ragged) -> Tensor:
    return x.pad().values.mean(dim=1)


def product_with_the_mask(x: Ragged) -> Tensor:
    padded = x.values if x.layout == "padded" else x.pad().values
    return (padded * x.rows.mask[:, :, None]).sum(dim=1)


def convolution_across_rows(x: Ragged) -> Ragged:
    if x.rows.n_tokens == 0:
        return x
    return Ragged(CONV(x.tokens().T[None])[0].T, x.rows, "packed")


def last_of_the_width(x: Ragged) -> Tensor:
    return x.pad().values[:, -1]


def max_with_zeros(x: Ragged) -> Tensor:
    return x.pad().values.amax(dim=1)


def weights_that_see_padding(x: Ragged) -> Ragged:
    return x.map(LINEAR)


def gradient_of_padding(x: Ragged) -> Ragged:
    """Right outputs, but the values in padding are read with weight one."""
    if x.layout == "packed":
        return x
    read = x.values.nan_to_num(0.0).sum()
    leak = read - read.detach()
    return x.with_values(x.filled(0.0) + leak)


@pytest.mark.parametrize(
    "broken",
    [
        mean_over_the_width,
        product_with_the_mask,
        convolution_across_rows,
        last_of_the_width,
        max_with_zeros,
        weights_that_see_padding,
        gradient_of_padding,
    ],
)
def test_a_broken_layer_is_found(broken: Callable[[Ragged], Any]) -> None:
    with pytest.raises(AssertionError):
        check_contract(broken, 3, [*LINEAR.parameters()])


def test_a_right_layer_passes() -> None:
    check_contract(lambda x: x.with_values(x.filled(0.0)).map(LINEAR), 3, [*LINEAR.parameters()])


@pytest.mark.parametrize(
    "waits",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x.nonzero()],
)
def test_waiting_for_the_device_is_found(waits: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        waits(torch.ones(3))
