"""An encoder: each token's vector together with the mean of its row."""

from __future__ import annotations

import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.interfaces import State
from runner.ragged.ragged import Ragged


class MeanContext(nn.Module):
    """Concatenate each token vector with the mean of its row, then apply a linear layer and ReLU.

    Args:
        input_size: components of a token vector.
        causal: whether a token may depend only on the tokens before it; must be false.
        size: components of the output vectors.
    """

    per_token = True

    def __init__(self, *, input_size: int, causal: bool, size: int) -> None:
        super().__init__()
        if causal:
            raise HydromelError("encoder=mean_context reads whole rows, so it cannot be used with task=lm")
        self.linear = nn.Linear(2 * input_size, size)
        self.output_size = size

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Rows of (length, input_size) -> rows of (length, size)."""
        padded = x.pad()  # (rows, width, input_size), zeros in the padding: they add nothing to the sum
        lengths = x.rows.lengths.clamp(min=1)  # not the width, which depends on the other rows of the batch
        mean = padded.values.sum(dim=1) / lengths[:, None]
        both = torch.cat([padded.values, mean[:, None].expand_as(padded.values)], dim=-1)
        y = padded.with_values(self.linear(both).relu())
        return (y.pack() if x.layout == "packed" else y), None
