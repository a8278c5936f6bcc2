"""Scores and their meaning, independently for each target (row or token): softmax, hinge, counts; and label weights.

Shapes: N targets (one per row, or one per real token), C classes or labels, vectors of size D.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
import yaml
from torch import Tensor, nn

from runner.common.errors import HydromelError, quoted, unknown
from runner.common.types import PositiveFloat
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.targets import class_ids, cross_entropy, softmax

OutputKind = Literal["softmax", "hinge", "count"]
LabelWeights = Literal["balanced"] | dict[str, PositiveFloat]
# Learning rate of the bias with head=count. It is so small that the bias, the overall class frequencies, only breaks
# ties: where nothing was counted, or the same number for several classes.
BACK_OFF = 1e-7


class GivenScores(nn.Module):
    """A layer for vectors that already are scores; it adds a learned bias per class.

    Args:
        n_classes: C.
        rate: learning rate of the bias, as a multiple of the optimiser's (`optimizers.parameters_by_rate`).
    """

    def __init__(self, n_classes: int, rate: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.learning_rate_factors = {"bias": rate}

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        return vectors + self.bias


def scorer(given: bool, input_size: int, n_classes: int, output: str) -> nn.Module:
    """Return a module that maps vectors (N, D) to scores (N, C): a linear layer, or `GivenScores` if they are scores.

    Raises:
        HydromelError: `given`, and `input_size` differs from C.
    """
    if not given:
        return nn.Linear(input_size, n_classes)
    if input_size != n_classes:
        raise HydromelError(
            f"task.scores=given and task.head=count need an encoder output of size {n_classes} (one per label), "
            f"got {input_size}; use embedding=ngrams embedding.size=null with encoder=none, or encoder=bow with "
            "encoder.hidden=[]"
        )
    return GivenScores(n_classes, BACK_OFF if output == "count" else 1.0)


class Output(Protocol):
    """The loss and predictions defined on scores: `runner.interfaces.Head` without the computation of the scores."""

    def loss(self, scores: Tensor, batch: Batch) -> Loss: ...

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged: ...

    def predict(self, scores: Tensor, batch: Batch) -> Tensor: ...

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor | None: ...


class OutputHead(nn.Module):
    """A head that delegates losses and predictions to its `output`; subclasses compute the scores or change a part."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        return self.output.loss(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return self.output.losses(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.predict(scores, batch)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor | None:
        return self.output.probabilities(scores, batch)


@dataclass(frozen=True)
class IndependentOutput:
    """An output that treats each target independently.

    Attributes:
        loss_of_targets: scores (N, C), target ids (N,) -> the loss of each target (N,).
        to_probabilities: scores (N, C) -> probabilities (N, C).
    """

    loss_of_targets: Callable[[Tensor, Tensor], Tensor]
    to_probabilities: Callable[[Tensor], Tensor]

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the loss summed over all targets of the batch, with the number of those that are not ignored."""
        return Loss(self._losses(scores, batch).sum(), batch.n_targets)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """Return the terms of `loss`: (B,), one per row, or a packed `Ragged` with one per real token."""
        losses = self._losses(scores, batch)
        return Ragged(losses, batch.target.rows, "packed") if isinstance(batch.target, Ragged) else losses

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each target, (N,); 0 for targets that have none."""
        target, has_loss = class_ids(batch, scores.shape[1])
        return self.loss_of_targets(scores, target).masked_fill(~has_loss, 0.0)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return scores.argmax(dim=1)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.to_probabilities(scores)


def hinge(scores: Tensor, target: Tensor) -> Tensor:
    """Return the one-against-rest hinge loss (N,) of scores (N, C): sum over classes of max(0, 1 - y score).

    y is 1 for the target class and -1 for the others (Rifkin and Klautau 2004). Only scores that fail their margin
    test, y score < 1, have a gradient.
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    signs = torch.full_like(exact, -1.0).scatter(1, target[:, None], 1.0)
    return (1.0 - signs * exact).relu().sum(dim=1)


def count_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Return the negative score (N,) of each target class.

    The gradient is -1 at the target class and 0 elsewhere. So one step of size 1 from zero, over the whole training
    set, turns a table of scores into class frequencies.
    """
    return -scores.gather(1, target[:, None])[:, 0]


def relative_frequencies(scores: Tensor) -> Tensor:
    """Return counts (N, C) as relative frequencies; a row without counts becomes uniform."""
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp(min=0.0)
    total = exact.sum(dim=1, keepdim=True)
    return torch.where(total > 0, exact / total.masked_fill(total == 0, 1.0), 1.0 / scores.shape[1])


OUTPUTS: dict[OutputKind, IndependentOutput] = {
    "softmax": IndependentOutput(cross_entropy, softmax),
    "hinge": IndependentOutput(hinge, softmax),
    "count": IndependentOutput(count_loss, relative_frequencies),
}


def output_of(kind: OutputKind, label_smoothing: float) -> IndependentOutput:
    """Return the output of a kind; a softmax may use smoothed targets (`cross_entropy`).

    Raises:
        HydromelError: label smoothing of a kind other than softmax.
    """
    if not label_smoothing:
        return OUTPUTS[kind]
    if kind != "softmax":
        raise HydromelError(
            f"task.label_smoothing={label_smoothing} needs task.head=softmax, but task.head={kind}; "
            "use task.label_smoothing=0.0 or task.head=softmax"
        )
    return replace(OUTPUTS[kind], loss_of_targets=partial(cross_entropy, smoothing=label_smoothing))


def label_weights(given: Literal["balanced"] | Mapping[str, float], labels: Vocab) -> Tensor:
    """Return the weight of each label: (C,) float64.

    `balanced`: n / (k * count), for n targets with k different labels in the training set (King and Zeng 2001, as in
    scikit-learn); the mean over the training targets is 1. Tags of the scheme that never occur there get 0.
    A mapping: as given, with 1 for the labels it does not name. Names that YAML reads as values, such as `true` and
    `1`, stand for the label that reads as this value.

    Raises:
        HydromelError: a weight for a label that is not in the training set, or for two labels that YAML does not tell
            apart.
    """
    if given == "balanced":
        counts = torch.tensor(labels.counts, dtype=torch.float64)
        # A scheme has tags that never occur in the training set: their weight would be infinite, and is never used.
        seen = counts > 0
        return (counts.sum() / (seen.sum() * counts)).masked_fill(~seen, 0.0)
    assert isinstance(given, Mapping)
    weights = torch.ones(len(labels), dtype=torch.float64)
    for name, weight in given.items():
        weights[labels.ids[_label_named(name, labels)]] = weight
    return weights


def _label_named(name: str, labels: Vocab) -> str:
    """Return the label that a key of `task.label_weights` stands for."""
    value = _value_of(name)
    same = [name] if value is None else [label for label in labels.tokens if _value_of(label) == value]
    if len(same) > 1:
        raise HydromelError(
            f"task.label_weights.{name}: YAML reads the labels {' and '.join(map(quoted, same))} as one value, so they "
            "cannot have weights; rename one of them in the data, or use task.label_weights=balanced"
        )
    if not same or same[0] not in labels.ids:
        raise unknown("label", name, labels.tokens, "task.label_weights")
    return same[0]


def _value_of(label: str) -> str | None:
    """Return the value, as JSON, that YAML reads a label as if it is written without quotes; None if it stays text."""
    try:
        value = yaml.safe_load(label)
    except yaml.YAMLError:
        return None
    return json.dumps(value) if value is None or isinstance(value, bool | int | float) else None


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
        """Return the weighted loss summed over all targets of the batch, with the number of those not ignored."""
        losses = self.losses(scores, batch)
        return Loss((losses.values if isinstance(losses, Ragged) else losses).sum(), batch.n_targets)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """Return the terms of `loss`: (B,), one per row, or a packed `Ragged` with one per real token."""
        target, _ = class_ids(batch, len(self.weights))
        losses, weights = self.output.losses(scores, batch), self.weights.index_select(0, target)
        return losses.map(lambda values: values * weights) if isinstance(losses, Ragged) else losses * weights
