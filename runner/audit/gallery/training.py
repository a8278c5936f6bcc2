"""Losses and metrics with frequent bugs, and their fixed versions."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

from torch import Tensor, nn

from runner.interfaces import Loss

Scores = tuple[Tensor, Tensor]  # scores (B, T, 3) and mask (B, T)


class Tagger(nn.Module):
    """A linear layer with three scores for each token."""

    def __init__(self) -> None:
        super().__init__()
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
