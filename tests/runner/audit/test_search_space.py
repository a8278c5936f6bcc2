"""The tasks, encoders and strategies of configs/, found by glob, and their options are batch-invariant at small sizes.

`make test` audits a sample of the space: every pair of a task and an encoder with default options, and every other
value of every option in one combination that exists: an option of a task with the encoder `QUICK` if it can, an option
of an encoder with a task that is drawn with a fixed seed. A pair is audited under one strategy of each layout and the
control, and for one encoder of each task under every strategy; a value under one packed and one padded strategy.
`make campaign` audits all combinations under every strategy.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch

from runner.audit.checks.verdict import AuditReport
from runner.audit.search_space import Combination, CombinationResult, audit_space, combinations
from tasks.classify import Pooling

CONFIGS = Path(__file__).parents[3] / "configs"
TASKS = sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml"))
ENCODERS = sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml"))
CHOOSES = {"auto"}  # a choice among the others
STRATEGIES = {path.stem for path in (CONFIGS / "batching").glob("*.yaml")} - CHOOSES
OF_EACH_LAYOUT = ("packed", "padmask", "stream", "unmasked")
OF_A_VALUE = ("packed", "padmask", "stream")
RECURRENT = {"rnn", "gru", "lstm", "bgru", "blstm"}  # encoders of cells, which `timestep` runs step by step
WITH_EVERY_STRATEGY = "conv"  # the encoder that is
QUICK = "encoder=conv"  # takes half the time of a recurrent one, and mixes neighbours, so that padding matters to it
REFUSED = 2  # combinations of a value without a model that a sample tries
PER_TOKEN = {"tag", "lm"}
PER_ROW = {"bow"}  # encoders with one vector per row
NO_CONTEXT = {"none"}  # encoders that padding does not affect, with or without a mask
REASONS = (
    "so it cannot predict each next token",
    "task=tag needs one vector per token",
    "would see the next token that task=lm predicts",
    "make them equal or use task.tie_weights=false",
    "task.head=sigmoid: with task.labels=one use",
    "is no finite number; task=regress needs one",  # a data set of pairs with labels
    "span_scheme",  # plain tags have no other scheme
    "no transitions to constrain",  # a softmax in training
    "the state would grow with the text",
    "task.scores=given and task.head=count need an encoder output of size",
)
NO_MODEL = {  # values that need another option too, so that varying one option at a time does not give a model
    "classify.head=count",
    "classify.head=sigmoid",
    "classify.scores=given",
    "tag.constraints=both",
    "tag.constraints=train",
    "tag.head=count",
    "regress.pairs=apart",  # no built-in data set has pairs with a number
    "regress.pairs=joined",
}
TWO_WAY = {"bgru", "blstm"}  # encoders that a language model refuses
SEED = 1

Choice = tuple[str, ...]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def assert_batch_norm_alone_is_blamed(report: AuditReport) -> None:
    """Batch norm fails in training only, and no other module is blamed."""
    # `update` may fail too: batches of one row that are too short use statistics of earlier rows.
    failures = [verdict for verdict in report.failures() if verdict.check != "update"]
    assert {verdict.mode for verdict in failures} == {"train"}
    padmask = [verdict.finding for verdict in failures if verdict.finding and verdict.subject == "padmask"]
    blamed = {finding.module for finding in padmask}
    assert all("norms.0 (MaskedBatchNorm)" in module or module == "loss" for module in blamed), blamed


def exists(result: CombinationResult, strategies: Collection[str] = STRATEGIES) -> bool:
    """Return True if there is such a model, and assert that it is batch-invariant (or a control that is not)."""
    report = result.report
    if report is None:
        assert any(reason in result.unfit for reason in REASONS), f"{result.choice}: {result.unfit}"
        return False
    assert result.passed, result.choice
    if result.is_control:
        assert_batch_norm_alone_is_blamed(report)
        return True
    report.raise_if_failed()
    task, encoder, *options = (override.partition("=")[2] for override in result.choice.split())
    streams = "task.unit=stream" in result.choice
    assert set(report.subjects()) == ({"stream"} if streams else {*strategies} - {"stream"})
    has_control = "unmasked" in strategies and not streams
    assert report.controls == (("unmasked",) if has_control else ())
    harmless = encoder in NO_CONTEXT and (task in PER_TOKEN or "first" in options)
    assert not has_control or harmless or report.failures(controls=True), f"{result.choice}: the control passes"
    return True


@cache
def space() -> list[Combination]:
    return combinations([])


def draws() -> dict[str, list[Choice]]:
    """Return the combinations of each varied value of an option in a drawn order, those of `QUICK` first."""
    by_value: dict[str, list[Choice]] = {}
    for combination in space():
        if combination.varied:
            by_value.setdefault(combination.varied, []).append(combination.overrides)
    generator = random.Random(SEED)
    drawn = {value: generator.sample(choices, len(choices)) for value, choices in sorted(by_value.items())}
    return {value: sorted(choices, key=lambda choice: choice[1] != QUICK) for value, choices in drawn.items()}


def of_each_layout(encoder: str) -> tuple[str, ...]:
    """Return a strategy of each layout that differs for an encoder."""
    return (*OF_EACH_LAYOUT, "timestep") if encoder in RECURRENT else OF_EACH_LAYOUT


def audited(choices: Sequence[Choice], strategies: Collection[str]) -> bool:
    """Audit the first of these combinations that exists; return False if there is none."""
    results = audit_space([f"batching={','.join(sorted(strategies))}"], chosen=choices)
    return any(exists(result, strategies) for result in results)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", TASKS)
def test_every_pair_of_task_and_encoder_is_batch_invariant(task: str, encoder: str) -> None:
    refused = (task in PER_TOKEN and encoder in PER_ROW) or (task == "lm" and encoder in TWO_WAY)
    strategies = STRATEGIES if encoder == WITH_EVERY_STRATEGY else of_each_layout(encoder)
    assert audited([(f"task={task}", f"encoder={encoder}")], strategies) is not refused


@pytest.mark.long
@pytest.mark.parametrize("part", [*(f"task={name}" for name in TASKS), *(f"encoder={name}" for name in ENCODERS)])
def test_every_value_of_an_option_is_batch_invariant(part: str) -> None:
    """Audit each value whose first draw is of this task, or of this encoder if it is an option of encoders."""
    group = part.partition("=")[0]
    for value, choices in draws().items():
        if part in choices[0] and choices[0][2].startswith(f"{group}."):
            tried = choices[:REFUSED] if value in NO_MODEL else choices
            assert audited(tried, OF_A_VALUE) is (value not in NO_MODEL), value


@pytest.mark.campaign
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", TASKS)
def test_every_combination_is_batch_invariant(task: str, encoder: str) -> None:
    # among all encoders: blstm is rnn with cell=lstm, which is audited once
    pair = (f"task={task}", f"encoder={encoder}")
    chosen = [combination.overrides for combination in combinations(pair[:1]) if combination.overrides[:2] == pair]
    models = [exists(result) for result in audit_space([], chosen=chosen)]
    assert any(models) == (encoder not in PER_ROW or task not in PER_TOKEN)


def test_the_sample_has_each_value_of_each_option_and_is_the_same_every_time() -> None:
    assert draws().keys() == {combination.varied for combination in space()} - {""}
    assert sum(map(len, draws().values())) == sum(bool(combination.varied) for combination in space())
    assert draws() == draws()


def test_combinations_include_each_pooling_and_unit_once() -> None:
    chosen = [combination.overrides for combination in combinations(["task=classify", "encoder=conv"])]
    poolings = {override for overrides in chosen for override in overrides if override.startswith("task.pooling=")}
    assert poolings == {f"task.pooling={name}" for name in set(get_args(Pooling)) - {"max"}}
    assert chosen[0] == ("task=classify", "encoder=conv")
    assert len(chosen) == len(set(chosen))
    language_models = [combination.overrides for combination in combinations(["task=lm"])]
    assert ("task=lm", "encoder=gru", "task.unit=stream") in language_models
    fixed = combinations(["task=classify", "encoder=conv", "task.pooling=min"])
    assert not any("pooling=" in combination.varied for combination in fixed)  # given overrides stay fixed


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_a_transformer_with_memory_over_a_stream_is_batch_invariant(positions: str) -> None:
    stream = ["task=lm", "task.unit=stream", "encoder=transformer", "encoder.memory=5", "encoder.layers=1"]
    report = next(audit_space([*stream, f"encoder.positions={positions}"])).report
    assert report is not None
    report.raise_if_failed()
    assert set(report.subjects()) == {"stream"}
