"""One-dimensional convolution over the tokens of each row, zeros beyond its edges; neighbours are not seen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.ragged import Ragged


class Convolution(nn.Module):
    """y[t] = b + sum_k W[k] x[t - left + k], as cross-correlation, as many outputs as tokens.

    Args:
        input_size: D.
        filters: number of outputs a token.
        width: tokens that an output sees.
        causal: it sees only its own token and those before it; else `(width - 1) // 2` before it, the rest after.
    """

    def __init__(self, input_size: int, filters: int, width: int, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, filters, width)
        self.left = width - 1 if causal else (width - 1) // 2
        self.right = width - 1 - self.left

    def forward(self, x: Ragged) -> Ragged:
        """Rows of (length, D) -> rows of (length, filters)."""
        if x.rows.n_tokens == 0:
            return x.with_values(x.values.new_zeros(*x.values.shape[:-1], self.convolution.out_channels))
        if x.layout == "padded":
            return x.with_values(self._convolve(x.filled(0.0)))
        return x.with_values(self._packed(x))

    def _convolve(self, rectangle: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, filters) with zero edges."""
        scores: Tensor = self.convolution(F.pad(rectangle.transpose(1, 2), (self.left, self.right)))
        return scores.transpose(1, 2)

    def _packed(self, x: Ragged) -> Tensor:
        """One long row in which enough zeros part the rows that no output sees two of them.

        max(left, right) zeros do: they are the right edge of one row and the left edge of the next.
        """
        gap = max(self.left, self.right)
        places = torch.arange(x.rows.n_tokens, device=x.values.device) + x.rows.row * gap
        line = x.values.new_zeros(x.rows.n_tokens + x.rows.n_rows * gap, x.values.shape[-1])
        line = line.index_copy(0, places, x.values)
        return self._convolve(line[None])[0].index_select(0, places)
