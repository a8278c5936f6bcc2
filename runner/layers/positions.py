"""Where a token stands, as numbers: sinusoids to be added to its vector, or rotations of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angles(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(...) positions -> (..., size / 2) in radians: position / 10000^(2 i / size) (Vaswani et al. 2017, section 3.5).

    Args:
        size: even.
        dtype: that of what they are for; angles are in float32 at least, since bfloat16 cannot count beyond 256.
    """
    exact = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device, dtype=exact) * (-math.log(10_000.0) / size))
    return positions.to(exact)[..., None] * rates


def sinusoids(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(...) -> (..., size) sines and cosines by turns (the same section)."""
    turns = angles(positions, size, dtype)
    return torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(-2).to(dtype)


def rotated(vectors: Tensor, turns: Tensor) -> Tensor:
    """(..., T, d), (T, d / 2) -> (..., T, d): pairs of neighbouring numbers, each turned by its angle.

    The product of a query and a key so turned depends on the distance of their positions alone (RoFormer, Su et al.
    2021, equation 34).
    """
    first, second = vectors[..., 0::2], vectors[..., 1::2]
    sine, cosine = turns.sin(), turns.cos()
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-2).to(vectors.dtype)
