"""Which kernels ran."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runner.profiling.kernels import KernelWatch


@pytest.mark.parametrize(
    ("module", "kernel"),
    [(nn.Linear(4, 4), "matrix products, padded"), (nn.Conv1d(4, 4, 1), "convolution, padded")],
)
def test_the_kernel_is_what_ran(module: nn.Module, kernel: str) -> None:
    with KernelWatch() as watch:
        module(torch.zeros(2, 4, 4))
    assert watch.describe("padded") == kernel


def test_recurrent_kernels_are_told_apart() -> None:
    x = torch.zeros(3, 2, 4)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 1]))
    seen = {}
    for name, given in {"padded": x, "packed": packed}.items():
        lstm = nn.LSTM(4, 4)
        with KernelWatch() as watch:
            lstm(given)
        seen[name] = watch.describe(name)
    assert seen["padded"].removesuffix("padded") != seen["packed"].removesuffix("packed")
    assert seen["packed"] == "RNN cells step by step, packed"
