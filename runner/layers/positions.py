"""Position encodings: sinusoids to add to token vectors, or rotations of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angles(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return angles position / 10000^(2 i / size) in radians, (...) -> (..., size / 2) (Vaswani et al. 2017, sec. 3.5).

    Args:
        positions: (...) from 0.
        size: even.
        dtype: of the vectors that use them; angles are in at least float32, since bfloat16 cannot count beyond 256.
    """
    exact = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device, dtype=exact) * (-math.log(10_000.0) / size))
    return positions.to(exact)[..., None] * rates


def sinusoids(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return alternating sines and cosines of `angles`, (...) -> (..., size)."""
    turns = angles(positions, size, dtype)
    return torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(-2).to(dtype)


def rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotate each pair of adjacent features by its angle: (..., T, d), (T, d / 2) -> (..., T, d).

    The product of a rotated query and a rotated key depends on the distance of their positions only (RoFormer, Su et
    al. 2021, equation 34).
    """
    first, second = vectors[..., 0::2], vectors[..., 1::2]
    sine, cosine = turns.sin(), turns.cos()
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-2).to(vectors.dtype)
