"""Random values for weights that are initialised to zero: a zero weight would hide any leak behind it."""

from __future__ import annotations

import torch
from torch import nn

SPREAD = 0.1


def randomise_zero_weights(model: nn.Module, seed: int) -> None:
    """Draw random values for parameters that are all zero (tables of counts, biases); padding vectors stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(SPREAD * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
