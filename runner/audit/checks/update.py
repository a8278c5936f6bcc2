"""Whether the training loop's gradients of an update are those of its examples, added up and divided once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from runner.audit.checks import verdict as kinds
from runner.audit.checks.compare import Alone, compare_loss
from runner.audit.checks.variations import Company
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.observe import Observation, Subject
from runner.interfaces import START, Loss
from runner.model import Model
from runner.ragged.batch import Batch
from runner.training.loop import backward


class Trained(Subject, Protocol):
    """A subject that training puts together in micro-batches."""

    @property
    def module(self) -> Model: ...

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """The micro-batches of an update, in order."""
        ...


def update_verdict(subject: Trained, alone: Alone, updates: Sequence[Company]) -> Verdict:
    """The loss and the gradients of the runner's own `backward`, against the examples alone.

    Args:
        subject: in train mode, without dropout.
        updates: the strategy's.
    """
    worst = 0.0
    for company in updates:
        good = replace(company, rows=alone.comparable(company.rows))
        for one in compare_loss(alone, good, _trained(subject, good)) if good.rows else ():
            worst = max(worst, one.share)
            if one.share > 1.0:
                detail = "The training loop's update is not that of its examples added up."
                found = Finding("loss", kinds.LOSS, one.quantity, one.rows, one.size, one.allowed, detail)
                return Verdict(subject.name, "update", "train", False, one.share, found)
    return Verdict(subject.name, "update", "train", True, worst)


def _trained(subject: Trained, company: Company) -> Observation:
    """One update as training makes it; sums again, so that they compare."""
    batches, model = subject.update(company.rows), subject.module
    count = sum(_answers(batch) for batch in batches)
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    for one in parameters.values():
        one.grad = None
    loss, _ = backward(model, model.head, batches, count, START, False, lambda lap: None)  # type: ignore[arg-type]
    gradients = {name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in parameters.items()}
    for one in parameters.values():
        one.grad = None
    times = max(1, count)
    return Observation(
        loss=Loss(loss * times, count), loss_gradients={name: grad * times for name, grad in gradients.items()}
    )


def _answers(batch: Batch) -> int:
    target = batch.target
    return target.rows.n_tokens if not isinstance(target, torch.Tensor) else len(batch.index)
