"""Scores of sets of labels: a binary decision for each label of a row, with thresholds chosen on the validation set.

Shapes: B rows, C labels, J candidates for a threshold.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.common.types import Fraction
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from tasks.targets import label_sets

SetOutputKind = Literal["sigmoid", "hinge"]
Threshold = Literal["one", "per_label"] | Fraction
EVEN = 0.5  # threshold of a probability at which both answers are equally likely
CANDIDATES = np.arange(1, 100) / 100  # (J,) thresholds that are tried on the validation set


class LabelSetOutput(nn.Module):
    """An output that decides for each label by itself whether a row has it: its probability reaches a threshold.

    The loss of a row is the sum over all labels: of the binary cross entropy (sigmoid), or of max(0, 1 - y score),
    where y is 1 for labels of the row and -1 for the others (hinge). Probabilities are the sigmoid of the scores, so
    that a threshold of 0.5 is a score of 0.

    Args:
        kind: sigmoid or hinge.
        n_labels: C.
        threshold: a number, or how it is chosen on the validation set before each evaluation: `one` threshold for all
            labels, with the best micro F1; or `per_label`, each with the best F1 of its label. Among equally good
            thresholds the closest to 0.5 is chosen. Labels that the validation set lacks have the threshold 0.5.
        smoothing: share of the target spread evenly over yes and no, 0 to below 1.
        weights: (C,) weight of a label's term in the rows that have the label; None: 1.

    Raises:
        HydromelError: smoothing with a hinge.
    """

    def __init__(
        self, kind: SetOutputKind, n_labels: int, threshold: Threshold, smoothing: float, weights: Tensor | None
    ) -> None:
        super().__init__()
        if kind == "hinge" and smoothing:
            raise HydromelError(
                f"task.label_smoothing={smoothing} needs probabilities, but task.head=hinge has margins; use "
                "task.label_smoothing=0.0 or task.head=sigmoid"
            )
        self.kind, self.smoothing, self.threshold = kind, smoothing, threshold
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor | None
        fixed = EVEN if isinstance(threshold, str) else threshold
        self.register_buffer("thresholds", torch.full((n_labels,), fixed))
        self.thresholds: Tensor  # (C,)

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the loss summed over labels and rows, with the number of rows."""
        return Loss(self.losses(scores, batch).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each row, (B,)."""
        exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
        gold = label_sets(batch, scores.shape[1])
        if self.kind == "hinge":
            terms = (1.0 - torch.where(gold, exact, -exact)).relu()
        else:
            target = gold.to(exact.dtype) * (1.0 - self.smoothing) + 0.5 * self.smoothing
            terms = F.binary_cross_entropy_with_logits(exact, target, reduction="none")
        if self.weights is not None:
            terms = torch.where(gold, terms * self.weights, terms)
        return terms.sum(dim=1)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the sets (B, C) bool: true for the labels whose probability is at least their threshold."""
        probabilities = self.probabilities(scores, batch)
        return probabilities >= self.thresholds.to(probabilities.dtype)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the probability of each label (B, C), independently of the others."""
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).sigmoid()

    def chooser(self) -> ThresholdChooser | None:
        return ThresholdChooser(self) if isinstance(self.threshold, str) else None


class ThresholdChooser:
    """The choice of thresholds by F1, from counts of the probabilities between neighbouring candidates.

    Args:
        output: its thresholds are set.
    """

    def __init__(self, output: LabelSetOutput) -> None:
        self.output, device = output, output.thresholds.device
        # Rounded as thresholds are, so that these counts and later predictions agree.
        self.candidates = torch.from_numpy(CANDIDATES).to(output.thresholds, non_blocking=True)
        n_cells = len(output.thresholds) * (len(CANDIDATES) + 1)
        # (C * (J + 1),) cell j of a label counts the rows whose probability reaches the first j candidates, but no more
        self._all, self._gold = (torch.zeros(n_cells, dtype=torch.int64, device=device) for _ in range(2))

    def update(self, scores: Tensor, batch: Batch) -> None:
        probabilities = self.output.probabilities(scores, batch).contiguous()
        n_reached = torch.bucketize(probabilities, self.candidates.to(probabilities.dtype), right=True)
        labels = torch.arange(scores.shape[1], device=scores.device)
        cells = (labels[None] * (len(CANDIDATES) + 1) + n_reached).flatten()
        self._all.index_add_(0, cells, torch.ones_like(cells))
        self._gold.index_add_(0, cells, label_sets(batch, scores.shape[1]).flatten().long())

    def choose(self) -> None:
        """Set the thresholds."""
        shape = (len(self.output.thresholds), len(CANDIDATES) + 1)
        everything, gold = torch.stack([self._all, self._gold]).cpu().numpy().reshape(2, *shape)
        if self.output.threshold == "one":
            everything, gold = (counts.sum(axis=0, keepdims=True) for counts in (everything, gold))
        chosen = torch.from_numpy(best_thresholds(everything, gold))
        self.output.thresholds.copy_(chosen.expand(len(self.output.thresholds)), non_blocking=True)


def best_thresholds(everything: IntArray, gold: IntArray) -> FloatArray:
    """Return the candidate with the best F1 of each label, (C,), among equal ones the closest to 0.5.

    Args:
        everything: (C, J + 1) number of rows whose probability reaches exactly the first 0, 1, ... J candidates.
        gold: the same, for the rows that have the label.
    """
    # Counts of the rows that reach candidate j: (C, J).
    predicted, right = (counts[:, ::-1].cumsum(axis=1)[:, -2::-1] for counts in (everything, gold))
    f1 = 2 * right / np.maximum(predicted + gold.sum(axis=1, keepdims=True), 1)
    by_distance = np.argsort(np.abs(CANDIDATES - EVEN), kind="stable")
    chosen: FloatArray = CANDIDATES[by_distance[f1[:, by_distance].argmax(axis=1)]]
    return chosen
