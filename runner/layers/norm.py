"""Normalisation of token vectors: each vector separately (layer), or each feature over the tokens of a batch (batch).

As in dropout, `forward` takes values with their rows and layout: (N, D) if packed, (B, T, D) if padded.
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
    """Layer normalisation (Ba et al. 2016): each token's vector gets mean 0 and variance 1, then learned weights."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        """Normalise each vector."""
        normed: Tensor = self.norm(values)
        return normed


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over real tokens: each feature gets mean 0 and variance 1 (Ioffe and Szegedy 2015).

    In either layout this equals torch's `BatchNorm1d` on packed tokens: the biased variance normalises, the unbiased
    variance updates the running variance, with momentum 0.1. Evaluation uses the running statistics.

    In training, predictions depend on the other tokens of the micro-batch by design. So strategies that cut an update
    differently (`size1`, `padmask`) no longer make the same updates. A batch of fewer than two tokens has no variance:
    it is normalised by the running statistics, in training too, and does not update them.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.running_mean: Tensor
        self.running_var: Tensor

    def statistics(self) -> list[Tensor]:
        """Return the running statistics (`runner.interfaces.HasStatistics`)."""
        return [self.running_mean, self.running_var]

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        """Normalise each feature. Padding is not read and becomes zeros."""
        use_batch = self.training and rows.n_tokens > 1
        tokens = Ragged(values, rows, layout).tokens()
        normed = F.batch_norm(tokens, self.running_mean, self.running_var, self.weight, self.bias, use_batch)
        return normed if layout == "packed" else Ragged(normed, rows, "packed").pad().values


def normalisation(name: Norm, size: int) -> LayerNorm | MaskedBatchNorm:
    """Return the normalisation called `name` for token vectors of `size`."""
    return LayerNorm(size) if name == "layer" else MaskedBatchNorm(size)
