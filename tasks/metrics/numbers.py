"""The metric of predicted numbers: correlations, explained variance and mean errors. Shapes: N rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import FloatArray
from runner.common.errors import HydromelError
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab


class NumberMetric:
    """Pearson's and Spearman's correlation, R2, and the mean squared and absolute error, in units of the targets.

    A correlation is 0 where it is undefined, since all predictions or all targets are equal. R2 is 1 - (sum of squared
    errors) / (sum of squared deviations from the mean target); if all targets are equal, 1 without errors, else 0.
    """

    scales: Mapping[str, Scale] = {
        "pearson": Scale("", higher_is_better=True),
        "spearman": Scale("", higher_is_better=True),
        "r2": Scale("", higher_is_better=True),
        "mse": Scale("", higher_is_better=False),
        "mae": Scale("", higher_is_better=False),
    }
    input_kind: InputKind = "numbers"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self._gold: list[Tensor] = []
        self._predicted: list[Tensor] = []

    def update(self, predicted: Tensor, batch: Batch) -> None:
        """Add the predicted numbers (B,) of one batch."""
        # Ranks need all rows. Sums of squares would lose the digits that large targets differ in.
        assert isinstance(batch.target, Tensor)
        self._gold.append(batch.target)
        self._predicted.append(predicted)

    def compute(self) -> dict[str, float]:
        """Return the figures of all rows so far.

        Raises:
            HydromelError: a prediction is infinite.
        """
        empty = [torch.empty(0, dtype=torch.float64)]
        gold, predicted = (torch.cat(parts or empty).double().cpu().numpy() for parts in (self._gold, self._predicted))
        if not np.isfinite(predicted).all():
            raise HydromelError("the model predicts an infinite number; lower optimizer.lr")
        error, n = predicted - gold, max(1, len(gold))
        mean = gold.sum() / n
        squared, variance = float(error @ error), float(np.square(gold - mean).sum())
        return {
            "pearson": correlation(gold, predicted),
            # Numbers that differ by rounding are equal, whatever batches they were predicted in.
            "spearman": correlation(ranks(gold), ranks((predicted - mean).astype(np.float32))),
            "r2": 1.0 - squared / variance if variance else float(squared == 0.0),
            "mse": squared / n,
            "mae": float(np.abs(error).sum()) / n,
        }

    def outcomes(self, figure: str, values: FloatArray, split: Batch) -> Outcomes | None:
        """Return the terms of an error or of R2 (with the split's mean as it is); None for correlations."""
        assert isinstance(split.target, Tensor)
        gold, ones = split.target.double().numpy(), np.ones(len(values))
        squared = np.square(values - gold)
        match figure:
            case "mse":
                return Outcomes(squared, ones, gold)
            case "mae":
                return Outcomes(np.abs(values - gold), ones, gold)
            case "r2":
                deviations = np.square(gold - gold.mean())
                return Outcomes(deviations - squared, deviations, gold) if deviations.any() else None
        return None


def correlation(x: FloatArray, y: FloatArray) -> float:
    """Return Pearson's correlation of x and y (N,); 0 if it is undefined."""
    x, y = (values - values.sum() / max(1, len(values)) for values in (x, y))
    # Equal numbers may differ from their mean by rounding.
    x, y = (values * (np.ptp(values) > 0 if len(values) else 0) for values in (x, y))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / size, -1.0, 1.0)) if size else 0.0


def ranks(values: FloatArray) -> FloatArray:
    """Return the rank of each number (N,), from 1; equal numbers share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    shared: FloatArray = (np.cumsum(count) - (count - 1) / 2)[place]
    return shared
