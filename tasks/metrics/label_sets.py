"""The metric of sets of labels: F1 over all labels, by label and by row, and the share of exact sets.

Shapes: B rows, C labels that can be predicted, V labels with those that the training set lacks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import BoolArray
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab
from tasks.metrics.metrics import PERCENT, by_name, precision_recall_f1
from tasks.targets import label_sets


class LabelSetMetric:
    """Micro, macro and sample F1, and subset accuracy, from counts kept on the device.

    `micro_f1` (with `micro_precision` and `micro_recall`) counts the labels of all rows together. `macro_f1` is the
    unweighted mean over the labels that are gold or predicted at least once. `sample_f1` is the mean over rows; a row
    without labels for which none are predicted counts as correct, with 100. `subset_accuracy` is the share of rows
    whose sets are equal. All are percentages.
    """

    scales: Mapping[str, Scale] = dict.fromkeys(
        ("micro_f1", "macro_f1", "sample_f1", "subset_accuracy", "micro_precision", "micro_recall"), PERCENT
    )
    input_kind: InputKind = "label_sets"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self.labels = vocabs["target"].tokens  # (V,)
        # numbers of correct, predicted and gold labels
        self._counts = torch.zeros(3, len(self.labels), dtype=torch.int64)
        self._f1 = torch.zeros((), dtype=torch.float64)  # summed over rows
        self._exact = torch.zeros((), dtype=torch.int64)
        self._rows = 0

    def update(self, predicted: Tensor, batch: Batch) -> None:
        """Add the predicted sets (B, C) bool of one batch."""
        if self._counts.device != predicted.device:
            for name in ("_counts", "_f1", "_exact"):
                setattr(self, name, getattr(self, name).to(predicted.device, non_blocking=True))
        gold = label_sets(batch, len(self.labels))
        right = predicted & gold[:, : predicted.shape[1]]
        for count, sets in zip(self._counts, (right, predicted, gold), strict=True):
            count[: sets.shape[1]] += sets.sum(dim=0)
        n_right, n_predicted, n_gold = (sets.sum(dim=1) for sets in (right, predicted, gold))
        self._f1 = self._f1 + row_f1(n_right, n_predicted, n_gold).sum()
        self._exact = self._exact + ((n_right == n_predicted) & (n_right == n_gold)).sum()
        self._rows += len(predicted)

    def compute(self) -> dict[str, object]:
        """Return the figures of all rows so far, and the table `per_class`."""
        right, predicted, gold = self._counts.cpu().numpy()
        micro = precision_recall_f1(*(count.sum() for count in (right, predicted, gold)))
        f1 = precision_recall_f1(right, predicted, gold)[2]
        return {
            **dict(zip(("micro_precision", "micro_recall", "micro_f1"), map(float, micro), strict=True)),
            "macro_f1": float(f1.sum() / max(1, np.count_nonzero(predicted + gold))),
            "sample_f1": float(self._f1) / max(1, self._rows),
            "subset_accuracy": 100.0 * int(self._exact) / max(1, self._rows),
            "per_class": by_name(self.labels, right, predicted, gold),
        }

    def outcomes(self, figure: str, values: BoolArray, split: Batch) -> Outcomes | None:
        """Return the terms of a figure; None for macro F1, which is not a sum over rows."""
        predicted = torch.from_numpy(values)
        gold = label_sets(split, len(self.labels))
        right = predicted & gold[:, : values.shape[1]]
        n_right, n_predicted, n_gold = (sets.sum(dim=1).numpy() for sets in (right, predicted, gold))
        rows = np.ones(len(values), dtype=np.int64)
        match figure:
            case "micro_f1":
                return Outcomes(200 * n_right, n_predicted + n_gold, n_gold)
            case "micro_precision":
                return Outcomes(100 * n_right, n_predicted, n_gold)
            case "micro_recall":
                return Outcomes(100 * n_right, n_gold, n_gold)
            case "sample_f1":
                f1 = row_f1(*map(torch.from_numpy, (n_right, n_predicted, n_gold))).numpy()
                return Outcomes(f1, rows, n_gold)
            case "subset_accuracy":
                return Outcomes(100 * ((n_right == n_predicted) & (n_right == n_gold)).astype(np.int64), rows, n_gold)
        return None


def row_f1(right: Tensor, predicted: Tensor, gold: Tensor) -> Tensor:
    """Return the F1 of each row (B,) float64 in percent, from its counts of labels; 100 for two empty sets."""
    labels = predicted + gold
    return torch.where(labels == 0, 100.0, 200.0 * right.double() / labels.clamp(min=1))
