"""A metric for any task with predictions: the share of rows that are entirely correct."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab
from tasks.metrics.metrics import PERCENT
from tasks.targets import sum_per_row, target_ids


class RowAccuracy:
    """The share of rows whose targets are all predicted correctly; rows without targets are correct."""

    scales: Mapping[str, Scale] = {"row_accuracy": PERCENT}
    input_kind: InputKind = "predictions"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self._right: Tensor | int = 0
        self._rows = 0

    def update(self, values: Tensor, batch: Batch) -> None:
        right = _right_rows(values, batch)
        self._right = self._right + right.sum()
        self._rows += len(right)

    def compute(self) -> dict[str, float]:
        """Return `row_accuracy` in percent."""
        return {"row_accuracy": 100.0 * int(self._right) / max(1, self._rows)}

    def outcomes(self, figure: str, values: IntArray, split: Batch) -> Outcomes:
        """Return the terms of the figure, one row each."""
        right = _right_rows(torch.from_numpy(values), split)
        targets = sum_per_row(torch.ones(len(values), dtype=torch.int64), split).numpy()
        return Outcomes(100 * right.numpy(), np.ones(len(right), dtype=np.int64), targets)


def _right_rows(predicted: Tensor, batch: Batch) -> Tensor:
    """Return (B,) int64: 1 for rows without a wrong prediction."""
    return (sum_per_row((predicted != target_ids(batch)).long(), batch) == 0).long()
