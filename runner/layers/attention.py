"""Multi-head self-attention within each row (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from runner.ragged import Ragged, Rows


class SelfAttention(nn.Module):
    """softmax(Q K' / sqrt(d)) V over the real tokens of a row; with `causal` over those up to the query's own.

    Args:
        size: D, a multiple of `heads`.
        heads: number of heads.
        causal: hide what comes later.
        dropout: probability of dropping a weight.
    """

    def __init__(self, size: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, x: Ragged) -> Ragged:
        """Rows of (length, D) -> the same. Packed: only the products of queries and keys see a rectangle."""
        x = x.with_values(x.filled(0.0))
        projected = x.map(self.queries_keys_values).pad()
        attended = Ragged(self._attend(projected), x.rows, "padded")
        return (attended.pack() if x.layout == "packed" else attended).map(self.output)

    def _attend(self, projected: Ragged) -> Tensor:
        """(B, T, 3D) -> (B, T, D)."""
        n_rows, width, _ = projected.values.shape
        # (3, B, heads, T, d)
        split = projected.values.view(n_rows, width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if self.causal else _visible(projected.rows),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,  # no mask besides: what stands before a real token is real
        )
        return attended.transpose(1, 2).reshape(n_rows, width, -1)


def _visible(rows: Rows) -> Tensor | None:
    """(B, 1, 1, T): the keys that each row sees, or None where all are real, so that kernels without mask can run."""
    if rows.n_tokens == rows.n_rows * rows.width:
        return None
    # an empty row sees its padding: a softmax over nothing would be NaN, and what it says is never read
    return (rows.mask | (rows.lengths == 0)[:, None])[:, None, None, :]
