"""`hydromel ranks=2` from the command line: torchrun's agent, one console, one line for what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.common import run_schema
from runner.distributed.launch import launch
from tests.helpers.composed import tag_files

OPTIONS = (
    *("encoder=conv", "encoder.filters=4", "embedding.size=6", "batching=packed", "batching.batch_size=8", "ranks=2"),
    *("device=cpu", "train.epochs=2", "baselines=false", "tracker=none", "cache_dir=null", "threads=1"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=40)


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "runner.cli.train", *OPTIONS, *options, f"hydra.run.dir={folder}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


@pytest.mark.long
def test_a_run_and_a_killed_one(data: list[str], tmp_path: Path) -> None:
    run, long = started(tmp_path / "run", *data), started(tmp_path / "long", *data, "train.epochs=100000")
    out, error = run.communicate(timeout=120)
    assert (run.returncode, error) == (0, "")
    assert out.count("-> ") == 1
    assert json.loads((tmp_path / "run" / run_schema.RESULT).read_text())["updates"]["count"] == 10
    assert "epoch   2" in (tmp_path / "run" / run_schema.CONSOLE).read_text()

    console = tmp_path / "long" / run_schema.CONSOLE
    until(lambda: console.exists() and "epoch   2" in console.read_text())
    ranks = children_of(long.pid)
    assert len(ranks) == 2
    os.kill(next(pid for pid in ranks if environment(pid, "RANK") == "1"), signal.SIGKILL)
    _, error = long.communicate(timeout=60)
    assert long.returncode == 1
    assert (
        error.splitlines()[-1]
        == f"error: rank 1 was killed by SIGKILL; continue with: hydromel resume={tmp_path / 'long'}"
    )
    assert "Traceback" not in error
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_ranks_get_the_signal_that_the_command_got(number: signal.Signals, tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        try:
            os._exit(launch("tests.helpers.waiting_for_signal", [str(tmp_path)], 2))
        finally:
            os._exit(70)
    until(lambda: len([*tmp_path.glob("*.waits")]) == 2)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert [file.read_text() for file in tmp_path.glob("*.got")] == [number.name] * 2


def until(condition: object) -> None:
    """Wait for a condition, for at most a minute."""
    assert callable(condition)
    end = time.time() + 60
    while not condition():
        assert time.time() < end, "it took too long"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid: int, name: str) -> str | None:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair).get(name)
