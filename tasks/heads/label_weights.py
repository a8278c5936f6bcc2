"""What each label weighs in training. Figures of valid and test know no weights.

Shapes: N answers (rows, or real tokens), C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from runner.common.errors import unknown
from runner.common.types import PositiveFloat
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.heads.outputs import Output
from tasks.targets import answers

LabelWeights = Literal["balanced"] | dict[str, PositiveFloat]


def label_weights(given: Literal["balanced"] | Mapping[str, float], labels: Vocab) -> Tensor:
    """(C,) float64. `balanced`: n / (k * count) for n answers of k labels in train (King and Zeng 2001, as in
    scikit-learn), whose mean over train's answers is 1; 0 for those (tags) that a scheme has and train has not.
    Of a mapping: as given, and 1 for labels that it does not name.

    Raises:
        HydromelError: a weight for a label that train lacks.
    """
    if given == "balanced":
        counts = torch.tensor(labels.counts, dtype=torch.float64)
        seen = counts > 0
        return (counts.sum() / (seen.sum() * counts)).masked_fill(~seen, 0.0)
    assert isinstance(given, Mapping)
    for label in given:
        if label not in labels.ids:
            raise unknown("label", label, labels.tokens, "task.label_weights")
    return torch.tensor([given.get(label, 1.0) for label in labels.tokens], dtype=torch.float64)


def weighted(output: Output, given: LabelWeights | None, labels: Vocab) -> Output | WeightedOutput:
    """The output with `label_weights`, if any."""
    return output if given is None else WeightedOutput(output, label_weights(given, labels))


class WeightedOutput(nn.Module):
    """An output whose loss weighs each answer by its right label.

    An update's loss is the sum of weighted losses over the number of answers, as without weights. It is not divided by
    the sum of the update's weights (as torch's `CrossEntropyLoss(weight=...)` does): then the same answer would move
    the model more or less by who stands beside it.

    Args:
        output: what scores mean.
        weights: (C,) of each label.
    """

    def __init__(self, output: Output, weights: Tensor) -> None:
        super().__init__()
        self.output = output
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed over all answers of the batch, with their number."""
        losses = self.losses(scores, batch)
        return Loss((losses.values if isinstance(losses, Ragged) else losses).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """The terms of that sum: (B,) one a row, or a packed `Ragged` of one a real token."""
        losses = self.output.losses(scores, batch)
        weights = self.weights.index_select(0, answers(batch))
        return losses.map(lambda each: each * weights) if isinstance(losses, Ragged) else losses * weights

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.predict(scores, batch)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.probabilities(scores, batch)
