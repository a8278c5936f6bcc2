"""The check `update`: the training loop's gradients must be the sum over the examples, divided once per update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from runner.audit.checks import kinds
from runner.audit.checks.compare import SingleReference, compare_loss
from runner.audit.checks.variations import BatchSpec
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.observe import Observation, Subject
from runner.interfaces import START, Loss
from runner.model import Model
from runner.ragged.batch import Batch
from runner.training.loop import backward


class TrainableSubject(Subject, Protocol):
    """A subject whose updates consist of micro-batches, as in training."""

    @property
    def module(self) -> Model: ...

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return the micro-batches of an update, in order."""


def update_verdict(subject: TrainableSubject, reference: SingleReference, updates: Sequence[BatchSpec]) -> Verdict:
    """Compare loss and gradients of the runner's own `backward` with the sum over single-example runs.

    The model is in train mode, without dropout; `updates` are those of the strategy.
    """
    detail = "The training loop's update differs from the sum over its examples."
    worst = 0.0
    for rows in filter(None, (reference.comparable(update.rows) for update in updates)):
        for difference in compare_loss(reference, BatchSpec(rows), _run_update(subject, rows)):
            worst = max(worst, difference.share)
            if difference.share > 1.0:
                size, allowed = difference.size, difference.allowed
                finding = Finding("loss", kinds.LOSS, difference.quantity, rows, size, allowed, detail)
                return Verdict(subject.name, "update", "train", False, difference.share, finding)
    return Verdict(subject.name, "update", "train", True, worst)


def _run_update(subject: TrainableSubject, rows: Sequence[int]) -> Observation:
    """Run one update as training does, and return sums instead of means, for comparison with the examples' sums."""
    micro_batches, model = subject.update(rows), subject.module
    count = sum(int(batch.targets_per_row.sum()) for batch in micro_batches)
    model.zero_grad()
    loss, _ = backward(model, micro_batches, count, START, False, lambda lap: None)
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * max(1, count)
        for name, parameter in model.named_parameters()
    }
    model.zero_grad()
    return Observation(loss=Loss(loss * max(1, count), count), loss_gradients=gradients)
