"""Every task x encoder x strategy of configs/ and their options, found by glob, are batch-invariant at small sizes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from runner.audit.checks.verdict import Report
from runner.audit.search_space import audit_space, combinations
from tasks.classify import Pooling

CONFIGS = Path(__file__).parents[3] / "configs"
TASKS = sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml"))
ENCODERS = sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml"))
CHOOSES = {"auto"}  # a choice among the others
STRATEGIES = {path.stem for path in (CONFIGS / "batching").glob("*.yaml")} - CHOOSES
PER_ROW = {"bow"}  # encoders with one vector per row
WITH_TASK_OPTIONS = {"rnn", "conv"}  # to a task the others are equivalent; `hydromel-audit --every` audits all
NO_CONTEXT = {"none"}  # encoders that padding does not affect, with or without a mask
REASONS = (
    "so it cannot predict each next token",
    "task=tag needs one vector per token",
    "would see the next token that task=lm predicts",
    "make them equal or use task.tie_weights=false",
    "span_scheme",  # plain tags have no other scheme
    "no transitions to constrain",  # a softmax in training
    "over a stream the encoder would remember the whole text",
    "given scores need an encoder output of size",  # of task.scores=given and task.head=count
)


def assert_batch_norm_alone_is_blamed(report: Report) -> None:
    """Batch norm fails in training only, and no other module is blamed."""
    # `update` may fail too: batches of one row that are too short use statistics of earlier rows.
    failures = [one for one in report.failures() if one.check != "update"]
    assert {one.mode for one in failures} == {"train"}
    blamed = {one.finding.module for one in failures if one.finding and one.subject == "padmask"}
    assert all("norms.0 (MaskedBatchNorm)" in one or one == "loss" for one in blamed), blamed


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", TASKS)
def test_every_combination_is_batch_invariant(task: str, encoder: str) -> None:
    torch.set_num_threads(1)
    reports = []
    overrides = [f"task={task}", f"encoder={encoder}"]
    # among all encoders: blstm is rnn with cell=lstm, which is audited once
    chosen = [options for options in combinations(overrides[:1]) if options[1] == overrides[1]]
    if encoder not in WITH_TASK_OPTIONS:
        chosen = [options for options in chosen if not any(option.startswith("task.") for option in options)]
    for one in audit_space(overrides, chosen=chosen):
        if one.report is None:
            assert any(reason in one.unfit for reason in REASONS), f"{one.choice}: {one.unfit}"
            continue
        assert one.passed, one.choice
        if one.is_control:
            assert_batch_norm_alone_is_blamed(one.report)
            continue
        one.report.raise_if_failed()
        streams = "task.unit=stream" in one.choice
        assert set(one.report.subjects()) == ({"stream"} if streams else STRATEGIES - {"stream"})
        assert one.report.controls == (() if streams else ("unmasked",))
        harmless = encoder in NO_CONTEXT and (task != "classify" or "task.pooling=first" in one.choice)
        assert streams or harmless or one.report.failures(controls=True), f"{one.choice}: the control passes"
        reports.append(one.report)
    assert bool(reports) == (encoder not in PER_ROW or task == "classify")


def test_combinations_include_each_pooling_and_unit_once() -> None:
    found = combinations(["task=classify", "encoder=conv"])
    pools = {one for chosen in found for one in chosen if one.startswith("task.pooling=")}
    assert pools == {f"task.pooling={one}" for one in set(get_args(Pooling)) - {"max"}}
    assert found[0] == ("task=classify", "encoder=conv")
    assert len(found) == len(set(found))
    assert ("task=lm", "encoder=gru", "task.unit=stream") in combinations(["task=lm"])
    chosen = combinations(["task=classify", "encoder=conv", "task.pooling=min"])
    assert not any("task.pooling" in one for options in chosen for one in options)  # given overrides stay fixed


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_a_transformer_with_memory_over_a_stream_is_batch_invariant(positions: str) -> None:
    torch.set_num_threads(1)
    stream = ["task=lm", "task.unit=stream", "encoder=transformer", "encoder.memory=5", "encoder.layers=1"]
    report = next(audit_space([*stream, f"encoder.positions={positions}"])).report
    assert report is not None
    report.raise_if_failed()
    assert set(report.subjects()) == {"stream"}
