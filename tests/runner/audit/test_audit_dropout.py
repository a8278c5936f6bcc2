"""The audit's check of dropout: on in every layer, and determined by each example's own seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from runner.audit.checks.verdict import Verdict
from runner.audit.config_audit import AuditOptions, audit_config
from runner.audit.tracing.module_state import with_dropout
from runner.config.compose import compose_strategies
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Layout
from runner.ragged.rows import Rows

SMALL = ("task=classify", "features.words.max_size=30", "embedding.size=6", "threads=1")
CONV = ("encoder=conv", "encoder.filters=4", "batching=padmask")
QUICK = AuditOptions(rows=8, longest=9, modes=(), arithmetics=())  # only the check of dropout


def verdicts(*overrides: str) -> dict[str, Verdict]:
    configs, left_out = compose_strategies([*SMALL, *overrides], None)
    report = audit_config(configs, left_out, QUICK)
    assert {verdict.check for verdict in report.verdicts} == {"dropout"}
    return {verdict.subject: verdict for verdict in report.verdicts}


def test_every_strategy_but_unmasked_passes_although_the_config_has_no_dropout() -> None:
    by_name = verdicts("encoder=transformer", "encoder.size=8", "encoder.feedforward=8")
    assert {name for name, verdict in by_name.items() if verdict.passed is False} == {"unmasked"}
    assert {"padmask", "packed", "size1", "timestep"} <= {name for name, verdict in by_name.items() if verdict.passed}


def by_place(self: Dropout, rows: Rows, seeds: torch.Tensor, layout: Layout) -> Any:
    """A wrong seed: the row's position in the batch."""
    return HONEST(self, rows, torch.arange(rows.n_rows), layout)


HONEST = Dropout._keys


def test_dropout_by_position_in_the_batch_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dropout, "_keys", by_place)
    verdict = verdicts(*CONV)["padmask"]
    assert verdict.passed is False
    assert verdict.finding is not None
    assert verdict.finding.module == "embedding.unk_dropout.dropout (Dropout)"


def test_a_model_without_dropout_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dropout, "forward", lambda self, values, rows, layout: values)
    monkeypatch.setattr(Dropout, "drop_mask", lambda self, keys: torch.zeros_like(keys, dtype=torch.bool))
    verdict = verdicts(*CONV)["padmask"]
    assert (verdict.passed, verdict.reason) == (None, "no dropout is on")


def test_rates_are_restored() -> None:
    model = nn.ModuleList([Dropout(0.0), nn.ModuleList([Dropout(0.2)])])
    layers = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    with with_dropout(model, 0.5):
        assert [layer.p for layer in layers] == [0.5, 0.5]
    assert [layer.p for layer in layers] == [0.0, 0.2]
