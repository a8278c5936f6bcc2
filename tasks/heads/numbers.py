"""Scores of numbers: losses of standardised targets. Shapes: B rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.interfaces import Loss
from runner.ragged.batch import Batch

NumberLoss = Literal["mse", "mae", "huber"]


class NumberOutput(nn.Module):
    """An output whose score (B, 1) is a number in units of the training targets' standard deviation from their mean.

    The loss of a row is that of its error e in these units: e^2 (mse), |e| (mae), or for huber e^2 / 2 up to
    |e| = delta and delta (|e| - delta / 2) beyond (Huber 1964).

    Args:
        loss: mse, mae or huber.
        delta: threshold of huber, in standard deviations.
    """

    def __init__(self, loss: NumberLoss, delta: float) -> None:
        super().__init__()
        self.kind, self.delta = loss, delta
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))
        self.mean: Tensor
        self.deviation: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` to the buffers, such as a move to a device, but keep them in float64 with all their digits.

        In float32 the mean of targets near 1.7e9 would be wrong by up to 64, which the model would have to learn.
        """
        exact = self.mean, self.deviation
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mean, self.deviation = (
            buffer.to(moved.device) for buffer, moved in zip(exact, (self.mean, self.deviation), strict=True)
        )
        return self

    def learn_scale(self, train: Batch) -> None:
        """Take mean and standard deviation of the training targets; 1 if they are all equal."""
        assert isinstance(train.target, Tensor)
        deviation = train.target.std(correction=0)
        self.mean.copy_(train.target.mean())
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the loss summed over rows, with their number."""
        return Loss(self.losses(scores, batch).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each row, (B,)."""
        assert isinstance(batch.target, Tensor)
        exact = scores[:, 0].to(torch.promote_types(scores.dtype, torch.float32))
        target = ((batch.target - self.mean) / self.deviation).to(exact.dtype)
        if self.kind == "huber":
            return F.huber_loss(exact, target, reduction="none", delta=self.delta)
        error = exact - target
        return error.square() if self.kind == "mse" else error.abs()

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the numbers (B,) float64, in units of the targets."""
        return scores[:, 0].double() * self.deviation + self.mean

    def probabilities(self, scores: Tensor, batch: Batch) -> None:
        """Return None: a number has no probability."""
