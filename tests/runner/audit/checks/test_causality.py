"""The audit's check of causality: an encoder of a language model that reads the next token is found and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from runner.audit.api import audit_module
from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.common.errors import HydromelError
from runner.config.compose import compose_config
from runner.config.schema import RunConfig
from tests.helpers.plugin_module import plugin_module

QUICK = AuditOptions(rows=8, longest=9, modes=("eval",), arithmetics=(), heat=False)
SMALL = ("features.words.max_size=30", "embedding.size=6", "batching=padmask", "threads=1")
SHIFTED = """
import torch
from torch import nn

class Shifted(nn.Module):
    per_token = True

    def __init__(self, *, input_size: int, causal: bool, ahead: bool) -> None:
        super().__init__()
        self.linear, self.output_size, self.ahead = nn.Linear(2 * input_size, 6), 6, ahead

    def forward(self, x, state):
        padded = x.with_values(x.filled(0.0)).pad()
        values, none = padded.values, torch.zeros_like(padded.values[:, :1])
        other = [values[:, 1:], none] if self.ahead else [none, values[:, :-1]]
        y = padded.with_values(self.linear(torch.cat([values, torch.cat(other, 1)], -1)))
        return (y.pack() if x.layout == "packed" else y), None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with plugin_module(tmp_path, monkeypatch, "shifted_plugin", SHIFTED) as name:
        yield name


def audited(config: RunConfig) -> AuditReport:
    return audit_config([config], {}, QUICK)


@pytest.mark.parametrize("ahead", [True, False])
def test_only_this_check_finds_an_encoder_that_reads_the_next_token(own: str, ahead: bool) -> None:
    encoder = {"_target_": f"{own}.Shifted", "ahead": ahead}
    report = audited(compose_config([*SMALL, "task=lm"]).changed(encoder=encoder, plugins=[own]))
    assert {verdict.check for verdict in report.failures()} == ({"causality"} if ahead else set())
    (verdict,) = report.of("padmask", "causality")
    assert verdict.passed is not ahead
    if ahead:
        assert verdict.finding is not None
        assert (verdict.finding.module, verdict.finding.kind) == ("encoder (Shifted)", "later tokens read")


def test_tasks_that_read_whole_rows_have_no_such_check() -> None:
    assert "causality" not in audited(compose_config([*SMALL, "task=tag", "encoder=none"])).checks()


def test_a_stream_is_checked_over_its_windows() -> None:
    stream = ["task=lm", "task.unit=stream", "encoder=lstm", "encoder.hidden=6"]
    small = ["batching=stream" if option.startswith("batching") else option for option in SMALL]
    (verdict,) = audited(compose_config([*small, *stream])).of("stream", "causality")
    assert verdict.passed


def test_examples_that_cannot_be_continued_are_told_in_one_line() -> None:
    with pytest.raises(HydromelError, match="examples must be tensors or lists, got tuple"):
        audit_module(
            nn.Linear(1, 1),
            [(1.0, 2.0), (3.0,)],
            lambda rows, padding: padding.stack([torch.tensor(row)[:, None] for row in rows]),
            causal=True,
            modes=("eval",),
            arithmetics=(),
        )
