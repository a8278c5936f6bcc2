"""A disk that is full at any write of a run: one line, nothing lost, and the same bits once there is room."""

from __future__ import annotations

import errno
import json
import logging
import os
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from runner.common import files, run_schema
from runner.common.errors import HydromelError
from runner.experiment import run as run_module
from runner.experiment.job import run_job
from runner.terminal import console
from runner.terminal.console import show_messages
from runner.tracking.run_folder import read_run
from runner.tracking.tracker import JsonlTracker, deliver_or_warn
from tests.helpers.composed import QUIET, run, run_config
from tests.helpers.interrupted import assert_equal
from tests.helpers.run_folders import finished

OPTIONS = [
    *("encoder=none", "embedding.size=4", "device=cpu", "batching=padmask", "batching.batch_size=8"),
    *("train.epochs=2", "train.checkpoint_every=3", "sweep.id=null"),
]


def fill_disk(patch: pytest.MonkeyPatch, name: str, write: int) -> None:
    """Let every write of a file fail from its `write`th one on, half way."""
    write_all, writes = files._write, 0

    def full(file: FileIO, content: bytes) -> None:
        nonlocal writes
        writes += name in os.fspath(file.name)
        if name in os.fspath(file.name) and writes >= write:
            file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(file, content)

    patch.setattr(files, "_write", full)


ENDS = [
    *(("last.safetensors", 1), ("last.safetensors", 3), ("best.safetensors", 1)),
    *(("metrics.jsonl", 1), ("metrics.jsonl", 2), ("result.json", 1), ("run/", 9)),
]


@pytest.mark.parametrize(("name", "write"), ENDS)
def test_a_run_that_cannot_go_on_is_resumed(
    name: str, write: int, data: list[str], whole: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, name, write)
        with pytest.raises(HydromelError, match=r"^cannot write .*: No space left on device$"):
            run(tmp_path / "run", *data, *OPTIONS)
    if name != "run/":
        assert read_run(tmp_path / "run")["status"] == run_schema.FAILED
    assert not list((tmp_path / "run").rglob(".*")), "no temporary file is left"
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["test.conll", "outcomes.npz", "run.json"])
def test_a_run_goes_on_without_what_is_no_matter_of_it(
    name: str, data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, name, 2 if name == "run.json" else 1)
        run(tmp_path / "run", *data, *OPTIONS)
    assert "No space left on device" in caplog.text
    assert read_run(tmp_path / "run")["status"] == run_schema.FINISHED


def test_a_run_finishes_without_plots(
    data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def draw(self, folder: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    components = run_module.Components.of

    def with_plots(*arguments: Any) -> Any:
        result = components(*arguments)
        object.__setattr__(result, "plots", Full())
        return result

    monkeypatch.setattr(run_module.Components, "of", with_plots)
    run(tmp_path / "run", *data, *OPTIONS)
    assert "the plots of" in caplog.text
    assert read_run(tmp_path / "run")["status"] == run_schema.FINISHED


def test_a_delivery_that_cannot_be_noted_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = finished(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, "delivered.json", 1)
        deliver_or_warn(JsonlTracker(path=str(tmp_path / "shared.jsonl")), folder, final=True)
    assert "No space left on device" in caplog.text
    JsonlTracker(path=str(tmp_path / "shared.jsonl")).deliver(folder, final=True)
    lines = [json.loads(line) for line in (tmp_path / "shared.jsonl").read_text().splitlines()]
    assert sum("metrics" in line for line in lines) == len((folder / run_schema.METRICS).read_text().splitlines())


def test_the_command_to_go_on_with(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(console._Copy, "_open", lambda self: Path("/dev/full").open("a", encoding="utf-8"))  # noqa: SIM115 (the handler closes it)
    fill_disk(monkeypatch, "last.safetensors", 2)
    assert run_job(folder, 0.0, run_config(*QUIET, *data, *OPTIONS, f"runs_dir={tmp_path}")) == 1
    error = capfd.readouterr().err
    assert error.endswith(
        f"error: cannot write {folder}/checkpoints/last.safetensors: No space left on device; once that is fixed, "
        f"continue with: hydromel resume={folder}\n"
    )
    assert error.count("\n") == 1


def test_a_full_disk_below_the_console_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    show_messages()
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        logging.getLogger("runner").info("a line")
        monkeypatch.undo()
        full.buffer.raw.close()  # type: ignore[attr-defined]  # of the line that is still buffered
        with pytest.raises(ValueError, match="closed"):
            full.flush()
