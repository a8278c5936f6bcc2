"""The estimate of memory beside what torch's allocator really gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from runner.advisor.advisor import memory_estimator
from runner.advisor.memory_estimate import MemoryEstimator, MemoryUse, probe_rows
from runner.components.run_components import build_batching
from runner.data.numericalize import arrange
from runner.interfaces import START
from runner.model import build_model, parameter_count
from runner.profiling.live_memory import LiveBytes
from runner.ragged.batch import Batch
from runner.training.evaluation import evaluate
from runner.training.loop import backward
from tests.helpers.composed import data_of, label_files, parts, run_config, tag_files

TOLERANCE = 0.3


def made(*overrides: str) -> tuple[MemoryEstimator, Any, Batch, list[Batch]]:
    """The estimate, the strategy, train (arranged) and the other splits."""
    composed = run_config("cache_dir=null", *overrides)
    torch.manual_seed(1)
    data, made = data_of(composed), parts(composed)
    model = build_model(made, data.vocabs)
    batching: Any = build_batching(composed.batching, [])
    estimate = memory_estimator(composed, made.task, data, model)
    others = [data.splits["valid"], data.splits["test"]]
    return estimate, batching, arrange(made, batching, data.splits["train"], composed.max_length), others


def allocated(estimate: MemoryEstimator, *batches: Batch) -> int:
    """The most bytes that torch's allocator had given at once while an update of these micro-batches ran."""
    model = estimate.model.train()
    model.zero_grad()
    return recorded(lambda: backward(model, list(batches), 99, START, estimate.bf16, lambda phase: None))


def recorded(work: Callable[[], object]) -> int:
    """Return the most bytes that torch's allocator had given at once when an operation ended, by its own record.

    What an operation takes and gives back meanwhile is its kernel's workspace, which differs by processor.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = record.profiler.kineto_results.events()
    memory = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    assert len(memory) > 20
    times, changes = np.array(memory).T
    ends = np.array([event.start_ns() + event.duration_ns() for event in events if event.name().startswith("aten::")])
    level = np.append(0, np.cumsum(changes))
    return int(level[np.searchsorted(times, ends, side="right")].max())


def neediest(
    estimate: MemoryEstimator, batching: Any, train: Batch, others: list[Batch]
) -> tuple[MemoryUse, list[Batch]]:
    """What is estimated for an epoch, and micro-batches to which it applies: the neediest, with others beside it."""
    lengths = train.rows.host_lengths
    updates = batching.updates(lengths, 1, 0)
    memory = estimate.estimate(batching, train, others, updates)
    for update in updates:
        batches = list(batching.micro_batches(train, update))
        for place, batch in enumerate(batches):
            shape = (batch.rows.n_rows, batch.rows.width, lengths[batch.index].sum())
            if shape == (memory.rows, memory.width, memory.tokens):
                return memory, [*batches[:place], *batches[place + 1 :], batch]
    raise AssertionError("the estimate is for a batch that there is not")


def neediest_evaluation(estimate: MemoryEstimator, batching: Any, others: list[Batch]) -> Batch:
    """The batch of evaluation that has most places."""
    batches = [batch for split in others for batch in batching.evaluation_batches(split, estimate.eval_batch_size)]
    return max(batches, key=lambda batch: batch.rows.n_rows * batch.rows.width)


def check_evaluation(memory: MemoryUse, estimate: MemoryEstimator, batch: Batch) -> None:
    tensors, _ = estimate.measure_scoring(batch)
    assert memory.scoring_bytes == pytest.approx(tensors, rel=TOLERANCE)
    measured = recorded(lambda: evaluate(estimate.model, estimate.metric(), [batch], estimate.bf16))
    assert memory.scoring_bytes == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("batching", ["padmask", "packed", "size1", "bucketed"])
@pytest.mark.parametrize("encoder", ["conv", "blstm", "gru", "transformer"])
def test_within_a_third_of_what_was_allocated(encoder: str, batching: str, tmp_path: Path) -> None:
    estimate, strategy, train, others = made(
        *tag_files(tmp_path, rows=300), f"encoder={encoder}", f"batching={batching}"
    )
    memory, batches = neediest(estimate, strategy, train, others)
    measured = memory.staying_bytes + allocated(estimate, *batches)
    assert memory.training_bytes == pytest.approx(measured, rel=TOLERANCE)
    check_evaluation(memory, estimate, neediest_evaluation(estimate, strategy, others))


@pytest.mark.parametrize(
    ("data", "overrides"),
    [
        (label_files, ("encoder=conv", "batching=padmask", "encoder.dropout=0.5")),
        (label_files, ("encoder=bow", "batching=packed")),
        (label_files, ("encoder=transformer", "batching=unmasked", "batching.width_multiple=8")),
        (label_files, ("encoder=lstm", "batching=token_budget", "precision=bf16")),
        (None, ("task=lm", "encoder=lstm", "batching=padmask", "features.words.max_size=3000")),
        (
            None,
            ("task=lm", "encoder=lstm", "batching=packed", "features.words.max_size=3000", "task.chunk_scores=600000"),
        ),
        (None, ("task=lm", "encoder=gru", "task.unit=stream", "batching=stream", "features.words.max_size=3000")),
    ],
    ids=["dropout", "bow", "unmasked", "bf16", "lm", "chunks", "stream"],
)
def test_other_tasks_and_layouts_too(data: Any, overrides: tuple[str, ...], tmp_path: Path) -> None:
    files = [] if data is None else data(tmp_path)
    estimate, strategy, train, others = made(*files, *overrides)
    memory, batches = neediest(estimate, strategy, train, others)
    measured = memory.staying_bytes + allocated(estimate, *batches)
    assert memory.training_bytes == pytest.approx(measured, rel=TOLERANCE)
    check_evaluation(memory, estimate, neediest_evaluation(estimate, strategy, others))


def test_long_rows_are_judged_by_short_ones(tmp_path: Path) -> None:
    """Attention by matrix products keeps weights of T x T, and rows far longer than any probe's must show it."""
    rng = np.random.default_rng(1)
    for split, rows in (("train", 40), ("valid", 4), ("test", 4)):
        lines = [" ".join([str(row % 2), *["word"] * rng.integers(600, 700)]) for row in range(rows)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = [f"data_dir={tmp_path}", *(f"dataset.{item}={item}.txt" for item in ("train", "valid", "test"))]
    estimate, strategy, train, others = made(
        "dataset=sst2",
        *files,
        "encoder=transformer",
        "encoder.dropout=0.1",
        "batching=padmask",
        "batching.batch_size=4",
    )
    memory, (batch,) = neediest(estimate, strategy, train, others)
    attention = 4 * memory.rows * 4 * memory.width**2 * 2  # one float for each pair of places, head, row and layer
    assert memory.activation_bytes > attention
    assert memory.activation_bytes == pytest.approx(allocated(estimate, batch), rel=TOLERANCE)


def test_what_can_be_counted_is_counted(tmp_path: Path) -> None:
    files = tag_files(tmp_path)
    for optimizer, copies in (("adam", 2), ("sgd", 0), ("rmsprop", 1)):
        estimate, strategy, train, others = made(*files, f"optimizer={optimizer}", "batching=packed", "encoder=gru")
        memory, _ = neediest(estimate, strategy, train, others)
        numbers = parameter_count(estimate.model)
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in estimate.model.buffers())
        assert memory.parameter_bytes == 4 * numbers + buffers
        assert memory.gradient_bytes == 4 * numbers
        steps = 4 * len(list(estimate.model.parameters()))  # torch counts updates in a float a parameter
        assert 4 * numbers * copies <= memory.optimizer_bytes <= 4 * numbers * copies + steps
        tokens = train.real_tokens + sum(split.real_tokens for split in others)
        assert memory.data_bytes == tokens * (4 + 4)  # ids and tags
        parts = memory.parameter_bytes + memory.optimizer_bytes + memory.data_bytes
        assert memory.training_bytes == parts + memory.update_bytes
        assert memory.evaluation_bytes == parts + memory.scoring_bytes
        assert memory.update_bytes >= max(memory.gradient_bytes, memory.activation_bytes)


def test_more_rows_need_more(tmp_path: Path) -> None:
    estimate, strategy, train, others = made(*tag_files(tmp_path, rows=300), "batching=padmask")
    needs = [
        estimate.estimate(strategy, train, others, np.split(np.arange(300), range(n, 300, n))).update_bytes
        for n in (4, 20, 100)
    ]
    assert needs == sorted(set(needs))


def test_probes_are_small_and_differ(tmp_path: Path) -> None:
    _, _, train, _ = made(*tag_files(tmp_path, rows=300))
    probes = probe_rows(train, one_by_one=False)
    assert all(probe.rows.n_rows * probe.rows.width <= 600 for probe in probes)
    assert len({(probe.rows.n_rows, probe.rows.width, probe.rows.n_tokens) for probe in probes}) == len(probes)
    assert all(probe.rows.n_tokens < probe.rows.n_rows * probe.rows.width for probe in probes)
    assert {probe_row.rows.n_rows for probe_row in probe_rows(train, one_by_one=True)} == {1}
    assert len(probe_rows(train.select(np.array([3])), one_by_one=False)) == len(probes)


def test_live_bytes_of_hand_made_tensors() -> None:
    before = torch.ones(10)
    live = LiveBytes([before])
    with live:
        kept = before + 1  # 40 bytes
        view = before.view(2, 5)
        gone = torch.zeros(100)  # 400
        del gone
        late = torch.zeros(50)  # 200
        again = late[:3]
        late.add_(1)
    assert live.peak_besides([]) == (440, 0)
    assert live.peak_besides([kept]) == (400, 40)
    assert live.peak_besides([late]) == (440, 0)
    assert view.numel() + again.numel() == 13


def test_live_bytes_have_a_limit() -> None:
    with LiveBytes([], limit=1000) as live:
        for _ in range(9):
            torch.zeros(200)  # 800 bytes, freed at once
        kept = [torch.zeros(200)]
        with pytest.raises(MemoryError, match=r"^1,600 bytes needed at once, 1,000 available$"):
            kept.append(torch.zeros(200))
    assert live.alive == 800


def test_live_bytes_are_those_of_the_allocator(tmp_path: Path) -> None:
    """Where no kernel has a workspace of its own, to the percent."""
    estimate, strategy, train, _ = made(*label_files(tmp_path), "encoder=transformer", "batching=padmask")
    batch = next(iter(strategy.micro_batches(train, np.arange(32))))
    allocated(estimate, batch)  # what is made once is made now
    live = LiveBytes([*estimate.model.parameters(), batch.target])
    estimate.model.zero_grad()
    with live:
        backward(estimate.model, [batch], 32, START, False, lambda phase: None)
    assert live.peak_besides([])[0] == pytest.approx(allocated(estimate, batch), rel=0.01)
