"""One update and one evaluation on a GPU: torch itself says where the host would wait; what is sent does not wait.

What `tests/device` shows without a GPU, here by `torch.cuda.set_sync_debug_mode("error")` and the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runner.components.run_components import Components
from runner.experiment.preparation import prepare
from runner.interfaces import START
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.tracking.run_folder import RunFolder
from runner.training.evaluation import metric_input
from runner.training.loop import backward
from runner.training.state import Training
from tests.helpers.composed import QUIET, label_files, run_config, tag_files

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
BUSY_CYCLES = 2_000_000_000  # about a second
DROPPED = "encoder.dropout=0.1 encoder.locked_dropout=0.1 embedding.dropout=0.1 task.dropout=0.1"
WORKS = {
    "rnn": f"tag encoder=rnn {DROPPED}",
    "gru": "tag encoder=bgru encoder.layers=2",
    "lstm, weights dropped": "tag encoder=blstm encoder.weight_drop=0.2",
    "conv": f"tag encoder=conv {DROPPED}",
    "transformer": "tag encoder=transformer encoder.dropout=0.1",
    "crf": "tag encoder=blstm task.head=crf task.constraints=both",
    "constrained": "tag encoder=conv task.constraints=decode",
    "char_conv": "tag encoder=blstm embedding=word_char",
    "char_rnn": "tag encoder=blstm embedding=char_rnn",
    "bow": "classify encoder=bow",
    "ngrams": "classify embedding=ngrams embedding.size=null encoder=none task.pooling=sum task.scores=given",
    "attention": "classify encoder=lstm task.pooling=attention",
    "largest": "classify encoder=conv task.pooling=max",
    "sgd": "tag optimizer=sgd",
    "asgd": "tag optimizer=asgd optimizer.t0=0",
    "rmsprop": "tag optimizer=rmsprop",
    "bf16": "tag encoder=blstm precision=bf16",
}
LINES = ("task=lm", "dataset=text", "encoder=lstm", "encoder.hidden=8", "embedding.size=8")


@contextmanager
def forbidden_waits() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def training(folder: Path, *overrides: str) -> Iterator[Training]:
    composed = run_config(*QUIET, *overrides, "device=cuda", "batching.batch_size=8", f"runs_dir={folder}")
    with RunFolder.open(folder / "run") as run:
        yield prepare(composed, Components.of(composed), run, 0.0).training


def step_and_evaluate(t: Training) -> None:
    """Two updates (an optimiser makes its state in the first) and an evaluation up to `compute`, without a wait."""
    carried = START
    for rows in t.batching.updates(t.train.rows.host_lengths, t.seed, 0)[:2]:
        t.model.train()
        with forbidden_waits():
            batches = list(t.batching.micro_batches(t.train, rows))
            count = sum(t.task.count(batch) for batch in batches)
            _, carried = backward(t.model, batches, count, carried, t.bf16, lambda phase: None)
            nn.utils.clip_grad_norm_(t.model.parameters(), 1.0)
            t.optimizer.step()
            t.optimizer.zero_grad()
    t.model.eval()
    measures, state, head = t.measures.start(t.vocabs), START, t.model.head
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=t.bf16), forbidden_waits():
        for batch in t.batching.evaluation_batches(t.valid, 8):
            scores, state = t.model(batch, state if batch.carries_state else None)
            values = {kind: metric_input(head, kind, scores, batch) for kind in measures.input_kinds}
            measures.update({kind: v.tokens() if isinstance(v, Ragged) else v for kind, v in values.items()}, batch)
    assert measures.compute()


@pytest.mark.parametrize("strategy", ["padmask", "packed"])
@pytest.mark.parametrize("name", WORKS)
def test_an_update_and_an_evaluation_wait_for_nothing(tmp_path: Path, name: str, strategy: str) -> None:
    task, *options = WORKS[name].split()
    data = {"tag": tag_files, "classify": label_files}[task](tmp_path, rows=40)
    with training(tmp_path, *data, *options, f"batching={strategy}") as t:
        step_and_evaluate(t)


@pytest.mark.parametrize("strategy", ["size1", "same_length", "bucketed", "timestep", "unmasked"])
def test_no_strategy_waits(tmp_path: Path, strategy: str) -> None:
    with training(tmp_path, *tag_files(tmp_path, rows=40), "encoder=blstm", f"batching={strategy}") as t:
        step_and_evaluate(t)


@pytest.mark.parametrize(
    "more", ["batching=padmask", "batching=stream task.unit=stream", "batching=packed task.dropout=0.1"]
)
def test_no_language_model_waits(tmp_path: Path, more: str) -> None:
    for split in ("train", "valid", "test"):
        text = "\n".join("the cat sat on the mat . " * (1 + number % 4) for number in range(40))
        (tmp_path / f"{split}.txt").write_text(text + "\n", encoding="utf-8")
    files = [f"data_dir={tmp_path}", *(f"dataset.{split}={split}.txt" for split in ("train", "valid", "test"))]
    with training(tmp_path, *LINES, *files, *more.split()) as t:
        step_and_evaluate(t)


def test_the_check_finds_a_wait() -> None:
    with forbidden_waits(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(3, device="cuda").sum().item()


@pytest.mark.parametrize("n_tokens", [1_000, 1_000_000])
def test_what_is_sent_does_not_wait_for_a_busy_device(n_tokens: int) -> None:
    """More than 64 KiB from memory that is not pinned would."""
    lengths = np.full(n_tokens // 100, 100)
    for busy in (False, True):  # at first pinned memory is found, which may wait
        sent: list[torch.Tensor] = []  # what was sent before is given back
        torch.cuda.synchronize()
        if busy:
            torch.cuda._sleep(BUSY_CYCLES)
        begin = time.perf_counter()
        sent = [Rows(lengths, torch.device("cuda", 0)).row, Rows(lengths, torch.device("cuda", 0)).position]
        seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    torch.cuda.synchronize()
    left = time.perf_counter() - begin
    assert left > 0.1, f"the device was not busy any more: {left:.3f} s left after {seconds:.3f} s of sending"
    assert [item.sum().item() for item in sent] == [
        100 * sum(range(len(lengths))),
        len(lengths) * sum(range(100)),
    ]
