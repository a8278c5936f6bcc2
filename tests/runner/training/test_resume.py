"""A run that was killed in the middle of an epoch goes on to the very same parameters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.records import SECONDS_KEYS
from runner.tracking.run_folder import RunFolder
from runner.training import checkpoint
from tests.helpers.composed import run, tag_files

HYDROMEL = [sys.executable, "-c", "from runner.cli.train import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS = [
    *("encoder=rnn", "encoder.hidden=8", "encoder.dropout=0.3", "embedding.size=8", "schedule=plateau"),
    *("batching.batch_size=2", "train.epochs=4", "train.checkpoint_every=7", "tracker=none", "run_plots=null"),
    *("cache_dir=null", "device=cpu", "train.warmup_updates=3", "threads=1"),
]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / run_schema.CHECKPOINTS / "last.safetensors")


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8"))
    return content


def records(folder: Path) -> list[tuple[int, int, str, float | None]]:
    """(step, epoch, name, value) of all records; of what depends on the clock, no value."""
    results = []
    for line in (folder / run_schema.METRICS).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name, value in record["metrics"].items():
            results.append((record["step"], record["epoch"], name, None if "seconds" in name else value))
    return results


def end_in_the_middle(folder: Path, arguments: list[str], number: signal.Signals) -> tuple[int, str]:
    """Start a run and send it a signal when it is within its second epoch; exit code and stderr."""
    process = subprocess.Popen([*HYDROMEL, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    metrics = folder / run_schema.METRICS  # gets records within an epoch just before a checkpoint is kept
    while not (metrics.exists() and '"epoch": 2' in metrics.read_text(encoding="utf-8")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(number)
    error = process.communicate()[1]
    return process.returncode, error


def test_sigkill_then_resume_gives_the_same_bits(tmp_path: Path) -> None:
    data = tag_files(tmp_path, rows=240)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole, *data, *OPTIONS)
    code, _ = end_in_the_middle(cut, [*data, *OPTIONS, f"hydra.run.dir={cut}"], signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (cut / run_schema.RESULT).exists()
    subprocess.run([*HYDROMEL, f"resume={cut}"], env=ENVIRONMENT, check=True)

    for name, tensor in tensors(whole).items():
        assert torch.equal(tensor, tensors(cut)[name]), name
    for key in ("metrics", "tokens", "padding", "updates"):
        assert result(whole)[key] == result(cut)[key], key
    recorded = records(cut)
    assert len(recorded) == len(set(recorded)), "a step was recorded twice"
    assert set(recorded) == set(records(whole)), "a record was lost, or another one made"
    lengths = [[{**item, "seconds": 0} for item in result(folder)["speed"]["by_length"]] for folder in (whole, cut)]
    assert lengths[0] == lengths[1] != []
    console = (cut / run_schema.CONSOLE).read_text(encoding="utf-8")
    epochs = [line.split()[1] for line in console.splitlines() if line.startswith("epoch ")]
    assert epochs[0] == "1"
    assert sorted(set(epochs), key=int) == [str(number + 1) for number in range(len(set(epochs)))]
    assert "\nresuming in epoch " in console
    seconds = result(cut)["seconds"]
    assert seconds["total"] > sum(seconds[phase] for phase in SECONDS_KEYS if phase != "total")


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    data = tag_files(tmp_path, rows=240)
    code, message = end_in_the_middle(
        folder, [*data, *OPTIONS, "train.epochs=200", f"hydra.run.dir={folder}"], signal.SIGINT
    )
    assert code == 130
    assert f"hydromel resume={folder}" in message
    assert "Traceback" not in message
    assert json.loads((folder / run_schema.RUN).read_text())["status"] == run_schema.INTERRUPTED
    (folder / "elsewhere").mkdir()
    command = [*HYDROMEL, f"resume={folder}", "train.epochs=2"]
    subprocess.run(command, env=ENVIRONMENT, check=True, cwd=folder / "elsewhere")
    assert result(folder)["updates"]["epochs"] >= 2
    assert not list((folder / "elsewhere").glob("runs/*/*")), "the folder that Hydra makes is left empty"


class Killed(Exception):
    pass


def killed(*arguments: object) -> None:
    raise Killed


def test_records_are_on_disk_before_the_checkpoint_that_lies_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, lost, kept = checkpoint.save_checkpoint, [], []

    def checked(path: Path, model: torch.nn.Module, state: dict[str, Any]) -> None:
        save(path, model, state)
        if path.stem == "last":
            position = state["progress"]
            within, recorded = position["update"], position["updates"] - len(position["unrecorded"])
            due = {"train/loss"} if within else {"train/loss", "valid/f1", "valid/loss"}
            if recorded:
                lost.extend(due - {name for step, _, name, _ in records(tmp_path / "run") if step == recorded})
            kept.append(bool(within))

    monkeypatch.setattr(checkpoint, "save_checkpoint", checked)
    run(tmp_path / "run", *tag_files(tmp_path), *OPTIONS, "train.epochs=2")
    assert not lost
    assert set(kept) == {True, False}


@pytest.mark.parametrize(
    "encoder",
    [
        ["encoder=lstm", "encoder.hidden=8"],
        ["encoder=transformer", "encoder.size=8", "encoder.memory=7"],
        ["encoder=lstm", "encoder.hidden=8", "batching.window=8", "batching.half_rate=0.3", "batching.spread=2.0"],
    ],
)
def test_a_stream_goes_on_with_the_state_that_it_carried(
    encoder: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join("the cat sat on the mat . " * (1 + number % 5) for number in range(60))
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text(text + "\n", encoding="utf-8")
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "dataset.train=train.txt", "dataset.valid=valid.txt"]
    options += ["encoder.dropout=0.2", "task.unit=stream", "batching=stream"]
    options += ["batching.batch_size=4", "batching.window=5", "train.epochs=2", "train.checkpoint_every=4", *encoder]
    run(tmp_path / "whole", *options)

    log = RunFolder.log

    def log_until(self: RunFolder, step: int, *rest: Any) -> None:
        if step > 20:
            raise Killed
        log(self, step, *rest)

    monkeypatch.setattr(RunFolder, "log", log_until)
    with pytest.raises(Killed):
        run(tmp_path / "cut", *options)
    monkeypatch.undo()
    assert any("carried" in name for name in tensors(tmp_path / "cut"))
    run(tmp_path / "cut", *options)
    for name, tensor in tensors(tmp_path / "whole").items():
        assert torch.equal(tensor, tensors(tmp_path / "cut")[name]), name
