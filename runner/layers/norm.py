"""Normalisation of token vectors: each by itself (layer), or each feature over the real tokens of a batch (batch).

Like dropout, these take values and say where they stand: (N, D) if packed, (B, T, D) if padded -> the same.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows

Norm = Literal["layer", "batch"]


class LayerNorm(nn.Module):
    """Each token's D numbers, shifted and scaled to mean 0 and variance 1, then by learned weights (Ba et al. 2016)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        normed: Tensor = self.norm(values)
        return normed


class MaskedBatchNorm(nn.Module):
    """Each feature, shifted and scaled to mean 0 and variance 1 over the real tokens of the batch.

    Source: Ioffe and Szegedy 2015. This is torch's `BatchNorm1d` of the packed tokens, whatever the layout: the biased
    variance normalises, the unbiased one enters the running variance, both at momentum 0.1. Evaluation normalises by
    the running statistics.

    In training an answer depends on the tokens beside it: that is what the layer is, so strategies that cut an update
    differently (`size1`, `padmask`) no longer make the same updates. Below two tokens there is no variance: such a
    batch is normalised by the running statistics, in training too, and leaves them as they are.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        """What stands in padding is not read; zeros come out there."""
        of_batch = self.training and rows.n_tokens > 1
        tokens = Ragged(values, rows, layout).tokens()
        normed = F.batch_norm(tokens, self.running_mean, self.running_var, self.weight, self.bias, of_batch)
        return normed if layout == "packed" else Ragged(normed, rows, "packed").pad().values


def normalisation(name: Norm, size: int) -> LayerNorm | MaskedBatchNorm:
    """The normalisation of that name for token vectors of `size`."""
    return LayerNorm(size) if name == "layer" else MaskedBatchNorm(size)
