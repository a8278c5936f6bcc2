"""One-dimensional convolution over the tokens of each row, zeros beyond its edges; other rows are not seen."""

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

    def forward(self, x: Ragged, before: Tensor | None) -> Ragged:
        """Rows of (length, D) -> rows of (length, filters).

        Args:
            before: (B, P, D) what stood before each row, P at least as many as its outputs see; None: zeros.
        """
        if x.rows.n_tokens == 0:
            return x.with_values(x.values.new_zeros(*x.values.shape[:-1], self.convolution.out_channels))
        edge = None if before is None else before[:, before.shape[1] - self.left :].to(x.values.dtype)
        return x.with_values(self._padded(x, edge) if x.layout == "padded" else self._packed(x, edge))

    def _padded(self, x: Ragged, edge: Tensor | None) -> Tensor:
        """(B, T, filters), of rows behind their left edge, (B, left, D)."""
        values = x.filled(0.0)
        if edge is None:
            return self._convolve(F.pad(values, (0, 0, self.left, self.right)))
        return self._convolve(F.pad(torch.cat([edge, values], dim=1), (0, 0, 0, self.right)))

    def _packed(self, x: Ragged, edge: Tensor | None) -> Tensor:
        """(N, filters), of one long row in which gaps part the rows, so that no output sees two of them.

        A gap has max(left, right) places: it is the right edge of one row, and ends as the left edge of the next.
        """
        gap, device = max(self.left, self.right), x.values.device
        places = torch.arange(x.rows.n_tokens, device=device) + (x.rows.row + 1) * gap
        line = x.values.new_zeros(x.rows.n_tokens + (x.rows.n_rows + 1) * gap, x.values.shape[-1])
        line = line.index_copy(0, places, x.values)
        if edge is not None:
            begins = x.rows.offsets[:-1] + torch.arange(1, x.rows.n_rows + 1, device=device) * gap
            edges = begins[:, None] + torch.arange(-self.left, 0, device=device)
            line = line.index_copy(0, edges.flatten(), edge.flatten(0, 1))
        return self._convolve(line[None])[0].index_select(0, places - self.left)

    def _convolve(self, rectangle: Tensor) -> Tensor:
        """(B, T, D) -> (B, T - left - right, filters)."""
        scores: Tensor = self.convolution(rectangle.transpose(1, 2))
        return scores.transpose(1, 2)
