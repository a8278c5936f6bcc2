"""Layers, losses and metrics with frequent bugs, and their fixed versions.

Each layer takes vectors (B, T, D) and a mask (B, T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.interfaces import Loss

Scores = tuple[Tensor, Tensor]  # scores (B, T, 3) and mask (B, T)


class Net(nn.Module):
    """A projection, the audited layer under its own name, and a linear layer for scores; `size` is its dimension."""

    def __init__(self, name: str, layer: nn.Module, size: int = 6) -> None:
        super().__init__()
        self.project = nn.Linear(4, 6)
        self.name = name
        self.add_module(name, layer)
        self.score = nn.Linear(size, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        layer: nn.Module = self.get_submodule(self.name)
        scores: Tensor = self.score(layer(torch.tanh(self.project(x.masked_fill(~mask[:, :, None], 0.0))), mask))
        return scores


class Variant(nn.Module):
    """A module with a bug, or its fixed version."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed


class MeanPool(Variant):
    """Wrong: the sum over real tokens is divided by the padded width."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        total = x.masked_fill(~mask[:, :, None], 0.0).sum(1)
        return total / (mask.sum(1)[:, None].clamp(min=1) if self.fixed else x.shape[1])


class ExtremePool(Variant):
    """Wrong: zeros in padding count as values, and win over negative (max) or positive (min) ones."""

    def __init__(self, fixed: bool, largest: bool) -> None:
        super().__init__(fixed)
        self.worst = -torch.inf if largest else torch.inf

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        filled = x.masked_fill(~mask[:, :, None], self.worst if self.fixed else 0.0)
        pooled = filled.amax(1) if self.worst < 0 else filled.amin(1)
        return pooled.masked_fill(~mask.any(1)[:, None], 0.0)


class ConvPair(Variant):
    """Wrong: the second convolution reads values that the first one wrote into the padding."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.first = nn.Conv1d(6, 6, 3, padding=1)
        self.second = nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        is_padding = ~mask[:, None, :]
        hidden = self.first(x.transpose(1, 2).masked_fill(is_padding, 0.0)).relu()
        if self.fixed:
            hidden = hidden.masked_fill(is_padding, 0.0)
        convolved: Tensor = self.second(hidden)
        return convolved.transpose(1, 2)


class CausalConv(Variant):
    """A convolution of a language model. Wrong: padded on both sides, it reads the token that is to be predicted."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.conv = nn.Conv1d(6, 6, 3, padding=2 if fixed else 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        convolved: Tensor = self.conv(x.transpose(1, 2).masked_fill(~mask[:, None, :], 0.0))
        return convolved[:, :, : x.shape[1]].transpose(1, 2)


class SoftmaxPool(Variant):
    """Wrong: weights are masked after the softmax, so they do not sum to 1 (golden case: they sum to .618)."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.query = nn.Linear(6, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x).squeeze(-1)
        if self.fixed:
            is_empty = ~mask.any(1)[:, None]
            weights = scores.masked_fill(~(mask | is_empty), -torch.inf).softmax(1).masked_fill(~mask, 0.0)
        else:
            weights = scores.softmax(1).masked_fill(~mask, 0.0)
        mean: Tensor = (weights[:, :, None] * x).sum(1)
        return mean


class CausalAttention(Variant):
    """Wrong: a causal mask only, although padding comes before the tokens, so that every token attends to it."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.projections = nn.Linear(6, 18)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = self.projections(x).chunk(3, dim=-1)
        width = x.shape[1]
        visible = torch.ones(width, width, dtype=torch.bool, device=x.device).tril()[None]
        if self.fixed:
            visible = visible & (mask[:, None, :] | torch.eye(width, dtype=torch.bool, device=x.device))
        attended: Tensor = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
        return attended


class FlatAttention(Variant):
    """Attention over the tokens of all rows as one row. Wrong: its mask does not say where rows begin.

    Models of transformers do this with `position_ids` that restart in a flattened batch.
    """

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.projections = nn.Linear(6, 18)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        row = mask.nonzero()[:, 0]
        queries, keys, values = self.projections(x[mask]).chunk(3, dim=-1)
        visible = row[:, None] == row if self.fixed else None
        attended: Tensor = F.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=visible)
        return x.new_zeros(x.shape).masked_scatter(mask[:, :, None], attended)


class Positions(Variant):
    """Wrong: positions are counted from the padded side."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.table = nn.Embedding(64, 6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        counted = (mask.long().cumsum(1) - 1).clamp(min=0)
        encoded: Tensor = self.table(counted if self.fixed else torch.arange(x.shape[1], device=x.device))
        return x + encoded


class BatchNorm(Variant):
    """Wrong: mean and variance include padding. Fixed: each token is normalised by itself, without the batch."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.norm = nn.LayerNorm(6) if fixed else nn.BatchNorm1d(6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed: Tensor = self.norm(x) if self.fixed else self.norm(x.transpose(1, 2)).transpose(1, 2)
        return normed


class LockedDropout(Variant):
    """Dropout with one mask for all steps of a row (Gal and Ghahramani 2016). Wrong: also for all rows of the batch."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.p = 0.5

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * F.dropout(x.new_ones(len(x) if self.fixed else 1, 1, x.shape[-1]), self.p, self.training)


class MaskedAttention(nn.Module):
    """Attention over the tokens of a row; wrong with a `mask_value` of -1e9, or if it is not `blind`."""

    def __init__(self, mask_value: float, blind: bool) -> None:
        super().__init__()
        self.mask_value = mask_value  # the value of masked scores; -1e9 does not fit into half precision
        self.blind = blind  # a row without tokens attends to its padding; otherwise its softmax is 0 / 0
        self.projections = nn.Linear(6, 18)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = self.projections(x).chunk(3, dim=-1)
        visible = mask | ~mask.any(1)[:, None] if self.blind else mask
        scores = queries @ keys.transpose(1, 2) / math.sqrt(6)
        weights = scores.masked_fill(~visible[:, None, :], self.mask_value).softmax(-1)
        attended: Tensor = weights @ values
        return attended.masked_fill(~mask[:, :, None], 0.0).sum(1)


class Tagger(Variant):
    """A linear layer with three scores for each token; its loss or metric has the bug."""

    def __init__(self, fixed: bool) -> None:
        super().__init__(fixed)
        self.score = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scores: Tensor = self.score(x.masked_fill(~mask[:, :, None], 0.0))
        return scores, mask


def token_nll(output: Scores) -> Tensor:
    """Return (N,) negative log-likelihoods of class 0 at the real tokens."""
    scores, mask = output
    return -scores[mask].log_softmax(-1)[:, 0]


def mean_loss(output: Scores, examples: Sequence[Sized]) -> Tensor:
    """Wrong: a mean over the micro-batch's tokens, so that an update averages means over different counts."""
    return token_nll(output).sum() / max(1, sum(map(len, examples)))


def counted_loss(output: Scores, examples: Sequence[Sized]) -> Loss:
    """Fixed: the sum over the tokens, and their number."""
    return Loss(token_nll(output).sum(), sum(map(len, examples)))


class BatchPerplexity:
    """Wrong: the mean of the batches' perplexities."""

    def __init__(self) -> None:
        self.perplexities: list[float] = []

    def update(self, output: Scores, examples: Sequence[Sized]) -> None:
        if sum(map(len, examples)):
            self.perplexities.append(math.exp(float(token_nll(output).mean())))

    def compute(self) -> dict[str, float]:
        return {"perplexity": sum(self.perplexities) / len(self.perplexities)}


class TokenPerplexity:
    """Fixed: one sum over all tokens."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, output: Scores, examples: Sequence[Sized]) -> None:
        nll = token_nll(output)
        self.total, self.count = self.total + float(nll.sum()), self.count + len(nll)

    def compute(self) -> dict[str, float]:
        return {"perplexity": math.exp(self.total / self.count)}


# each wrong, then fixed
LOSSES = (mean_loss, counted_loss)
METRICS = (BatchPerplexity, TokenPerplexity)
