"""Multi-head self-attention within each row: dot, scaled dot or additive scores; length masks, causal masks, or both.

Shapes: H heads of d numbers, D = H d.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from runner.layers.dropout import Dropout
from runner.ragged import Ragged
from runner.rows import Rows

Score = Literal["dot", "scaled_dot", "additive"]
ADDITIVE_NUMBERS = 2**22  # that additive scores hold at once before they are summed over d: 16 MiB in float32


class SelfAttention(nn.Module):
    """softmax(score(q, k)) V over the real tokens of a row; with `causal` over those up to the query's own.

    `dot` is q . k (Luong et al. 2015, eq. 8), `scaled_dot` is q . k / sqrt(d) (Vaswani et al. 2017, eq. 1), `additive`
    is v . tanh(q + k) (Bahdanau et al. 2015, appendix A.1.2: the projections of queries and keys are its W and U).

    Args:
        size: D, a multiple of `heads`.
        heads: number of heads.
        causal: hide what comes later.
        score: dot, scaled_dot or additive.
        dropout: probability of dropping a weight.
    """

    def __init__(self, size: int, heads: int, causal: bool, score: Score, dropout: float) -> None:
        super().__init__()
        self.heads, self.causal, self.score = heads, causal, score
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.dropout = Dropout(dropout)
        if score == "additive":
            bound = math.sqrt(heads / size)  # as torch's linear layers of d inputs
            self.additive = nn.Parameter(torch.empty(heads, size // heads).uniform_(-bound, bound))

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
        drops = self.training and self.dropout.p > 0.0
        if self.score == "additive" or (drops and projected.rows.seeds is not None):
            attended = self._weights(queries, keys, projected.rows).to(values.dtype) @ values
        else:
            attended = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=None if self.causal else _over_heads(length_mask(projected.rows)),
                dropout_p=self.dropout.p if self.training else 0.0,
                is_causal=self.causal,  # no mask besides: what stands before a real token is real
                scale=self._scale(queries),
            )
        return attended.transpose(1, 2).reshape(n_rows, width, -1)

    def _weights(self, queries: Tensor, keys: Tensor, rows: Rows) -> Tensor:
        """(B, H, T, d) twice -> (B, H, T, T), dropped out, in float32 at least."""
        if self.score == "additive":
            scores = additive_scores(queries, keys, self.additive)
        else:
            scores = (queries * self._scale(queries)) @ keys.transpose(2, 3)
        visible = _over_heads(both(rows) if self.causal else length_mask(rows))
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        dropped: Tensor = self.dropout(weights.transpose(1, 2), rows, "padded")
        return dropped.transpose(1, 2)

    def _scale(self, queries: Tensor) -> float:
        return 1.0 if self.score == "dot" else 1.0 / math.sqrt(queries.shape[-1])


def length_mask(rows: Rows) -> Tensor | None:
    """(B, 1, T): the keys that a row's queries see, or None where all are real, so that kernels without mask can run.

    An empty row sees its padding: a softmax over nothing would be NaN, and what it says is never read.
    """
    if rows.n_tokens == rows.n_rows * rows.width:
        return None
    return (rows.mask | (rows.lengths == 0)[:, None])[:, None, :]


def causal_mask(width: int, device: torch.device) -> Tensor:
    """(T, T): query t sees keys up to t."""
    return torch.ones(width, width, dtype=torch.bool, device=device).tril()


def both(rows: Rows) -> Tensor:
    """(B, T, T) or (T, T): `length_mask` and `causal_mask`."""
    causal, length = causal_mask(rows.width, rows.device), length_mask(rows)
    return causal if length is None else causal & length


def _over_heads(mask: Tensor | None) -> Tensor | None:
    """(B, ., T) -> (B, 1, ., T); a mask without rows, (T, T), and none are for all heads as they are."""
    return mask if mask is None or mask.dim() == 2 else mask[:, None]


def additive_scores(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """(B, H, T, d) twice, (H, d) -> (B, H, T, T).

    All sums q + k at once are d times as large: they are made for some queries at a time, and again for gradients.
    """
    n_rows, heads, width, size = keys.shape
    step = max(1, ADDITIVE_NUMBERS // (n_rows * heads * width * size))
    if step >= width:
        return _additive(queries, keys, weight)
    pieces = torch.split(queries, step, dim=2)
    scored = [checkpoint(_additive, one, keys, weight, use_reentrant=False, preserve_rng_state=False) for one in pieces]
    return torch.cat(scored, dim=2)


def _additive(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("bhqkd,hd->bhqk", torch.tanh(queries[:, :, :, None] + keys[:, :, None]), weight.to(keys.dtype))
