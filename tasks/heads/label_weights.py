"""Label weights in the training loss. Figures of the validation and test sets are never weighted.

Shapes: N targets (one per row, or one per real token), C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from runner.common.errors import unknown
from runner.common.types import PositiveFloat
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.heads.outputs import Output, OutputHead
from tasks.targets import target_ids

LabelWeights = Literal["balanced"] | dict[str, PositiveFloat]


def label_weights(given: Literal["balanced"] | Mapping[str, float], labels: Vocab) -> Tensor:
    """Return the weight of each label: (C,) float64.

    `balanced`: n / (k * count), for n targets with k different labels in the training set (King and Zeng 2001, as in
    scikit-learn); the mean over the training targets is 1. Tags of the scheme that never occur there get 0.
    A mapping: as given, with 1 for the labels it does not name.

    Raises:
        HydromelError: a weight for a label that is not in the training set.
    """
    if given == "balanced":
        counts = torch.tensor(labels.counts, dtype=torch.float64)
        # A scheme has tags that never occur in the training set: their weight would be infinite, and is never used.
        seen = counts > 0
        return (counts.sum() / (seen.sum() * counts)).masked_fill(~seen, 0.0)
    assert isinstance(given, Mapping)
    for label in given:
        if label not in labels.ids:
            raise unknown("label", label, labels.tokens, "task.label_weights")
    return torch.tensor([given.get(label, 1.0) for label in labels.tokens], dtype=torch.float64)


def weighted(output: Output, given: LabelWeights | None, labels: Vocab) -> Output:
    """Return the output with `label_weights` applied, or unchanged if none are given."""
    return output if given is None else WeightedOutput(output, label_weights(given, labels))


class WeightedOutput(OutputHead):
    """An output whose loss weights each target by its label.

    The loss of an update is the sum of the weighted losses divided by the number of targets, as without weights. It is
    not divided by the sum of the weights, as in torch's `CrossEntropyLoss(weight=...)`: then the gradient of an example
    would depend on the other examples in its batch.

    Args:
        output: the unweighted output.
        weights: (C,) weight of each label.
    """

    def __init__(self, output: Output, weights: Tensor) -> None:
        super().__init__(output)
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the weighted loss summed over all targets of the batch, with their number."""
        losses = self.losses(scores, batch)
        return Loss((losses.values if isinstance(losses, Ragged) else losses).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """Return the terms of that sum: (B,), one per row, or a packed `Ragged` with one per real token."""
        losses = self.output.losses(scores, batch)
        weights = self.weights.index_select(0, target_ids(batch))
        return losses.map(lambda values: values * weights) if isinstance(losses, Ragged) else losses * weights
