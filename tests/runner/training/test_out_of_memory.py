"""Out of memory: updates are made again in smaller pieces with the same result; rehearsing changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError, ran_out
from runner.experiment import job, result
from runner.experiment import run as experiment
from runner.model import Model
from tests.helpers.composed import run, run_config, tag_files
from tests.helpers.metrics import assert_same_metrics

EXACT = ["dtype=float64", "train.epochs=2", "batching.batch_size=8", "embedding.size=8", "baselines=false"]
CONV = ["encoder=conv", "encoder.filters=8"]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / run_schema.CHECKPOINTS / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


class Killed(Exception):
    pass


def killed(*arguments: object) -> None:
    raise Killed


def small_device(monkeypatch: pytest.MonkeyPatch, most_rows: int, training: bool = True) -> list[int]:
    """From here on a model in training (or evaluation) has memory for so many rows; the rows of each attempt."""
    forward, tried = Model.forward, list[int]()

    def limited(self: Model, batch: Any, state: Any) -> Any:
        if self.training == training:
            tried.append(batch.rows.n_rows)
            if batch.rows.n_rows > most_rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, batch, state)

    monkeypatch.setattr(Model, "forward", limited)
    return tried


@pytest.mark.parametrize("rehearse", [True, False])
@pytest.mark.parametrize("strategy", ["padmask", "packed"])
def test_updates_in_smaller_pieces_reach_the_same_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, rehearse: bool
) -> None:
    options = [*tag_files(tmp_path), *EXACT, *CONV, f"batching={strategy}", f"train.rehearse={str(rehearse).lower()}"]
    whole = run(tmp_path / "whole", *options)
    tried = small_device(monkeypatch, most_rows=3)
    cut = run(tmp_path / "cut", *options)

    assert max(tried) == 8
    assert tried.count(8) == 1, "the smaller size is kept"
    assert whole["memory"]["micro_batch"] == {"asked": None, "used": None, "halved_at": []}
    assert cut["memory"]["micro_batch"] == {"asked": None, "used": 2, "halved_at": [0, 0] if rehearse else [1, 1]}
    assert cut["memory"]["peak_batch"]["rows"] == (2 if rehearse else 8)
    assert cut["updates"] == whole["updates"]
    for name, tensor in parameters(tmp_path / "whole").items():
        torch.testing.assert_close(parameters(tmp_path / "cut")[name], tensor, rtol=0, atol=1e-12, msg=name)


def test_a_lack_of_memory_on_a_cpu_is_found_before_the_system_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*tag_files(tmp_path), *EXACT, *CONV, "batching=packed", "device=cpu"]
    whole = run(tmp_path / "whole", *options)
    limits = iter([100, 10**9])  # bytes that are left at each attempt
    monkeypatch.setattr("runner.training.memory_check.available_bytes", lambda: next(limits))
    cut = run(tmp_path / "cut", *options)
    assert cut["memory"]["micro_batch"] == {"asked": None, "used": 4, "halved_at": [0]}
    assert cut["updates"] == whole["updates"]
    for name, tensor in parameters(tmp_path / "whole").items():
        torch.testing.assert_close(parameters(tmp_path / "cut")[name], tensor, rtol=0, atol=1e-12, msg=name)

    monkeypatch.setattr("runner.training.memory_check.available_bytes", lambda: 100)
    with pytest.raises(HydromelError, match=r"^out of memory at the rehearsal before training with one row at once"):
        run(tmp_path / "never", *options)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_rehearsing_changes_nothing(tmp_path: Path, norm: str) -> None:
    model = [
        "encoder=transformer",
        "encoder.size=8",
        "encoder.feedforward=8",
        "encoder.heads=2",
        f"encoder.norm={norm}",
    ]
    options = [*tag_files(tmp_path), *EXACT, *model, "encoder.dropout=0.3", "batching=padmask"]
    with_it = run(tmp_path / "with", *options)
    without = run(tmp_path / "without", *options, "train.rehearse=false")
    for name, tensor in load_file(tmp_path / "with" / run_schema.CHECKPOINTS / "last.safetensors").items():
        if name.startswith(("model.", "state.rng")):
            other = load_file(tmp_path / "without" / run_schema.CHECKPOINTS / "last.safetensors")[name]
            assert torch.equal(tensor, other), name
    assert with_it["metrics"] == without["metrics"]
    assert with_it["memory"]["peak_batch"] == without["memory"]["peak_batch"]


def test_evaluation_in_smaller_batches_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), *EXACT, *CONV, "batching=packed", "train.eval_batch_size=16"]
    whole = run(tmp_path / "whole", *options)
    tried = small_device(monkeypatch, most_rows=5, training=False)
    assert_same_metrics(run(tmp_path / "cut", *options)["metrics"], whole["metrics"])
    assert [tried.count(size) for size in (16, 8)] == [1, 1], "the smaller size is kept, for test too"


def test_a_resumed_run_keeps_the_smaller_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), *EXACT, *CONV, "batching=padmask"]
    with monkeypatch.context() as limits:
        small_device(limits, most_rows=5)
        limits.setattr(experiment, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path / "run", *options)
    result = run(tmp_path / "run", *options, "train.epochs=3")
    assert result["memory"]["micro_batch"] == {"asked": None, "used": 4, "halved_at": [0]}
    assert result["updates"]["count"] == 3 * 15


def test_a_resumed_run_keeps_the_smaller_evaluation_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), *EXACT, *CONV, "batching=packed", "train.eval_batch_size=16"]
    with monkeypatch.context() as limits:
        small_device(limits, most_rows=5, training=False)
        limits.setattr(experiment, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path / "run", *options)
    tried = small_device(monkeypatch, most_rows=16, training=False)
    run(tmp_path / "run", *options, "train.epochs=3")
    assert max(tried) == 4


def test_one_row_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_device(monkeypatch, most_rows=0)
    with pytest.raises(
        HydromelError, match=r"the rehearsal .* one row at once \(rows \d+ of train.*lengths 21\); .*max"
    ):
        run(tmp_path / "run", *tag_files(tmp_path), *EXACT, *CONV, "batching=padmask")


def test_streams_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("the cat sat on the mat .\n" * 40, encoding="utf-8")
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "dataset.train=train.txt", "dataset.valid=valid.txt"]
    small_device(monkeypatch, most_rows=3)
    stream = ["task.unit=stream", "batching=stream", "batching.batch_size=4", "batching.window=5"]
    with pytest.raises(HydromelError, match=r"4 streams by 5 tokens, which cannot be cut; lower batching\.batch_size"):
        run(tmp_path / "run", *options, *stream, "encoder=lstm", "encoder.hidden=8")


def test_what_is_no_lack_of_memory_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Model, batch: Any, state: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Model, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(tmp_path / "run", *tag_files(tmp_path), *EXACT, *CONV, "batching=padmask")


@pytest.mark.parametrize(
    ("message", "memory"),
    [
        ("could not create a primitive", True),  # oneDNN's, as all that follow under `ulimit -v`
        ("could not execute a primitive", True),
        ("could not create a primitive descriptor for a matmul primitive", False),
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: ...", True),
        ("unable to mmap 5513268 bytes from file </best.safetensors>: Cannot allocate memory (12)", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_which_errors_are_of_memory(message: str, memory: bool) -> None:
    assert ran_out(RuntimeError(message)) == memory


def test_a_finished_run_is_not_lost_for_want_of_memory_to_look_at_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(t: Any) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(result, "kernel", full)
    monkeypatch.setattr(result, "arithmetic", full)
    outcome = run(tmp_path / "run", *tag_files(tmp_path), *EXACT, *CONV, "batching=padmask")
    assert (outcome["kernel"], outcome["arithmetic"]) == (None, None)
    assert outcome["metrics"]["test"]
    assert "out of memory, so kernel is not on record" in caplog.text


def test_memory_that_runs_out_elsewhere_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes.\nC++ frames ...")

    monkeypatch.setattr(experiment, "run_experiment", full)
    assert job.run_job(tmp_path, 0.0, run_config()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (DefaultCPUAllocator: can't allocate memory")
    assert line.endswith("the run has not started")
