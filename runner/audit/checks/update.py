"""The check `update`: the training loop's gradients must be the sum over the examples, divided once per update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

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
        ...


def update_verdict(subject: TrainableSubject, reference: SingleReference, updates: Sequence[BatchSpec]) -> Verdict:
    """Compare loss and gradients of the runner's own `backward` with the sum over single-example runs.

    Args:
        subject: a model in train mode, without dropout.
        updates: the batches of the strategy's updates.
    """
    worst = 0.0
    for update in updates:
        comparable = replace(update, rows=reference.comparable(update.rows))
        for difference in (
            compare_loss(reference, comparable, _run_update(subject, comparable)) if comparable.rows else ()
        ):
            worst = max(worst, difference.share)
            if difference.share > 1.0:
                detail = "The training loop's update differs from the sum over its examples."
                finding = Finding(
                    "loss",
                    kinds.LOSS,
                    difference.quantity,
                    difference.rows,
                    difference.size,
                    difference.allowed,
                    detail,
                )
                return Verdict(subject.name, "update", "train", False, difference.share, finding)
    return Verdict(subject.name, "update", "train", True, worst)


def _run_update(subject: TrainableSubject, update: BatchSpec) -> Observation:
    """Run one update as training does, and return sums instead of means, for comparison with the examples' sums."""
    micro_batches, model = subject.update(update.rows), subject.module
    count = sum(_targets(batch) for batch in micro_batches)
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    loss, _ = backward(model, micro_batches, count, START, False, lambda lap: None)
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters.items()
    }
    for parameter in parameters.values():
        parameter.grad = None
    times = max(1, count)
    return Observation(
        loss=Loss(loss * times, count), loss_gradients={name: grad * times for name, grad in gradients.items()}
    )


def _targets(batch: Batch) -> int:
    """Return the number of targets: one per token, or one per row."""
    target = batch.target
    return target.rows.n_tokens if not isinstance(target, torch.Tensor) else len(batch.index)
