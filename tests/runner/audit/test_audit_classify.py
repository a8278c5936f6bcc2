"""AuditOptions of classifiers besides pooling are batch-invariant; weights that depend on the batch are found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.config.compose import compose_strategies
from runner.interfaces import Loss
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tasks.heads.outputs import WeightedOutput

SMALL = ["threads=1", "features.words.max_size=30", "encoder.filters=5", "cache_dir=null"]
LEARNED = ["task.hidden=[6]", "task.label_smoothing=0.1", "task.label_weights=balanced", "task.pooling=attention"]


def audited(batching: str) -> AuditReport:
    torch.set_num_threads(1)
    given = ["task=classify", "encoder=conv", f"batching={batching}", *LEARNED, *SMALL]
    configs, left_out = compose_strategies(given, None)
    return audit_config(configs, left_out, AuditOptions(rows=10, longest=9, arithmetics=("float32",)))


def test_hidden_layers_smoothing_and_weights_are_batch_invariant() -> None:
    report = audited("size1,padmask,packed,bucketed,unmasked")
    report.raise_if_failed()
    assert report.controls == ("unmasked",)
    assert report.failures(controls=True)


def test_a_loss_divided_by_the_batchs_weights_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss divided by the sum of the batch's weights, like torch's `CrossEntropyLoss(weight=...)`."""

    def divided(self: WeightedOutput, scores: Tensor, batch: Batch) -> Loss:
        losses = self.losses(scores, batch)
        assert not isinstance(losses, Ragged)
        assert not isinstance(batch.target, Ragged)
        weights = self.weights.index_select(0, batch.target)
        return Loss(losses.sum() * len(losses) / weights.sum(), len(losses))

    monkeypatch.setattr(WeightedOutput, "loss", divided)
    report = audited("padmask")
    assert not report.passed
    assert {verdict.finding.module for verdict in report.failures() if verdict.finding is not None} == {"loss"}
