"""What the machine that runs the tests has."""

from __future__ import annotations

import torch
from torch import nn

from runner.profiling.kernels import KernelWatch


def lstm_is_fused() -> bool:
    """Return whether torch runs a float32 LSTM by one kernel of oneDNN; not every architecture has it."""
    with KernelWatch() as watch:
        nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    return watch.names() == "oneDNN RNN"
