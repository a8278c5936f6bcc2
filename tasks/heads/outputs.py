"""Where scores come from and what they mean, each answer (row or token) by itself: softmax, hinge, counts.

Shapes: N answers, C possible ones, D numbers a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.targets import answers, cross_entropy, softmax

OutputKind = Literal["softmax", "hinge", "count"]
BACK_OFF = 1e-7  # rate of a counted bias: it decides where nothing was counted, or equally much, and nowhere else


class Given(nn.Module):
    """Vectors that are scores already, plus a learned bias of each answer.

    Args:
        n_answers: C.
        rate: of the bias' learning, times the optimiser's (`optimizers.parameters_by_rate`).
    """

    def __init__(self, n_answers: int, rate: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_answers))
        self.rates = {"bias": rate}

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        return vectors + self.bias


def scorer(given: bool, input_size: int, n_answers: int, output: OutputKind) -> nn.Module:
    """Vectors (N, D) -> scores (N, C): by a linear layer, or as they are `given`.

    Raises:
        HydromelError: vectors that cannot be scores.
    """
    if not given:
        return nn.Linear(input_size, n_answers)
    if input_size != n_answers:
        raise HydromelError(
            f"scores that are given need one number for each of the {n_answers} labels, but the encoder gives vectors "
            f"of {input_size}; use embedding=ngrams embedding.size=null with encoder=none, or bow with hidden=[]"
        )
    return Given(n_answers, BACK_OFF if output == "count" else 1.0)


class AnswerOutput(Protocol):
    """What scores mean: what `runner.interfaces.Head` asks of a head, but for the scores themselves."""

    def loss(self, scores: Tensor, batch: Batch) -> Loss: ...

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged: ...

    def predict(self, scores: Tensor, batch: Batch) -> Tensor: ...

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor: ...


class OutputHead(nn.Module):
    """The part of a head that its `output` answers for; a head adds how token vectors become scores."""

    def __init__(self, output: AnswerOutput) -> None:
        super().__init__()
        self.output = output

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        return self.output.loss(scores, batch)

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        return self.output.losses(scores, batch)

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.predict(scores, batch)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        return self.output.probabilities(scores, batch)


@dataclass(frozen=True)
class Output:
    """What each answer's scores mean by themselves.

    Attributes:
        each: scores (N, C), right answers (N,) -> the loss of each answer (N,).
        shares: scores (N, C) -> probabilities (N, C).
    """

    each: Callable[[Tensor, Tensor], Tensor]
    shares: Callable[[Tensor], Tensor]

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed over all answers of the batch, with their number."""
        return Loss(self.each(scores, answers(batch)).sum(), scores.shape[0])

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """The terms of that sum: (B,) one a row, or a packed `Ragged` of one a real token."""
        losses = self.each(scores, answers(batch))
        return Ragged(losses, batch.target.rows, "packed") if isinstance(batch.target, Ragged) else losses

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """(N,) int64."""
        return scores.argmax(dim=1)

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """(N, C), in float32 at least."""
        return self.shares(scores)


def hinge(scores: Tensor, right: Tensor) -> Tensor:
    """(N,) sum over answers of max(0, 1 - y score), y = 1 for the right one, else -1: one against the rest (Rifkin and
    Klautau 2004). Only what fails its margin test, y score < 1, has a gradient.
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    signs = torch.full_like(exact, -1.0).scatter(1, right[:, None], 1.0)
    return (1.0 - signs * exact).relu().sum(dim=1)


def counted(scores: Tensor, right: Tensor) -> Tensor:
    """(N,) minus the right answers' scores: one step of size 1 from zero, over all of train at once, makes of scores
    that are looked up relative frequencies.
    """
    return -scores.gather(1, right[:, None])[:, 0]


def relative(scores: Tensor) -> Tensor:
    """(N, C) of counts; where there are none, all alike."""
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp(min=0.0)
    total = exact.sum(dim=1, keepdim=True)
    return torch.where(total > 0, exact / total.masked_fill(total == 0, 1.0), 1.0 / scores.shape[1])


OUTPUTS: dict[OutputKind, Output] = {
    "softmax": Output(cross_entropy, softmax),
    "hinge": Output(hinge, softmax),
    "count": Output(counted, relative),
}


def output_of(kind: OutputKind, label_smoothing: float) -> Output:
    """The output of that kind, of which a softmax learns smoothed targets (`cross_entropy`).

    Raises:
        HydromelError: targets to be smoothed that are no probabilities.
    """
    if not label_smoothing:
        return OUTPUTS[kind]
    if kind != "softmax":
        raise HydromelError(
            f"task.label_smoothing={label_smoothing}: task.head={kind} learns no probabilities that could be smoothed; "
            "use task.label_smoothing=0.0 or task.head=softmax"
        )
    return replace(OUTPUTS[kind], each=partial(cross_entropy, smoothing=label_smoothing))
