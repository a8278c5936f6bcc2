"""A run that a signal stops finishes its update, keeps what it did, and goes on as if it had never been stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.common import run_schema
from runner.experiment.job import run_job
from runner.sweeps.process import end_with_us, start_job
from runner.terminal.interruption import interruption
from runner.training import evaluation, loop
from runner.training.checkpoint import Checkpoint, checkpoint_path
from tests.helpers.composed import QUIET, run, run_config
from tests.helpers.interrupted import assert_equal

OPTIONS = [
    *("encoder=rnn", "encoder.hidden=4", "encoder.dropout=0.3", "embedding.size=4", "device=cpu", "batching=padmask"),
    *("batching.batch_size=8", "train.epochs=2", "train.log_every=3", "sweep.id=null"),
]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """The signals are handled as in a command."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interruption.heed()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interruption.asked = interruption.reason = ""


def during(patch: pytest.MonkeyPatch, name: str, call: int, *numbers: signal.Signals) -> None:
    """Send signals to this process within a call of a function of the loop or of evaluation, after its work."""
    module = evaluation if hasattr(evaluation, name) and not hasattr(loop, name) else loop
    function, calls = getattr(module, name), 0

    def signalled(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*arguments)
        for number in numbers if calls == call else ():
            os.kill(os.getpid(), number)
        return result

    patch.setattr(module, name, signalled)


def stopped(folder: Path, data: list[str], name: str, call: int, *numbers: signal.Signals) -> int:
    """Make a run that signals stop, and return the updates before its last checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        during(patch, name, call, *numbers)
        with pytest.raises(KeyboardInterrupt, match=f"stopped by {numbers[0].name}"):
            run(folder, *data, *OPTIONS, "train.rehearse=false")
    record = json.loads((folder / run_schema.RUN).read_text())
    assert (record["status"], record["error"]) == (run_schema.INTERRUPTED, f"stopped by {numbers[0].name}")
    last = checkpoint_path(folder, "last")
    return Checkpoint.read(last).progress.updates if last.exists() else 0


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal(number: signal.Signals, data: list[str], whole: Path, tmp_path: Path) -> None:
    assert stopped(tmp_path / "run", data, "add_gradients", 4, number) == 4
    interruption.heed()
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "call", "updates"),
    [
        *(("add_gradients", 8, 8), ("add_gradients", 16, 16), ("evaluate", 1, 8), ("metric_input", 1, 8)),
        *(("record_evaluation", 1, 8), ("report_epoch", 2, 16)),
    ],
)
def test_every_phase(name: str, call: int, updates: int, data: list[str], whole: Path, tmp_path: Path) -> None:
    assert stopped(tmp_path / "run", data, name, call, signal.SIGTERM) == updates
    interruption.heed()
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run")


def test_a_run_that_is_stopped_at_every_update(data: list[str], whole: Path, tmp_path: Path) -> None:
    for update in range(1, 17):
        assert stopped(tmp_path / "run", data, "add_gradients", 1, signal.SIGUSR1) == update
        interruption.heed()
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run", same_plan=False)


def test_no_unrecorded_update_is_lost_if_none_is_left(data: list[str], tmp_path: Path) -> None:
    stopped(tmp_path / "run", data, "add_gradients", 5, signal.SIGTERM)
    interruption.heed()
    run(tmp_path / "run", *data, *OPTIONS, "train.max_updates=5")
    lines = (tmp_path / "run" / run_schema.METRICS).read_text().splitlines()
    steps = [record["step"] for record in map(json.loads, lines) if "train/loss" in record["metrics"]]
    assert steps == [3, 5]


@pytest.mark.parametrize("insists", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(insists: signal.Signals, data: list[str], tmp_path: Path) -> None:
    assert stopped(tmp_path / "run", data, "add_gradients", 12, signal.SIGTERM, insists) == 8


def test_a_request_that_is_passed_on_may_come_twice(data: list[str], tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR1)
    assert stopped(tmp_path / "run", data, "add_gradients", 12, *numbers) == 12


def test_the_command_to_go_on_with(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    during(monkeypatch, "add_gradients", 4, signal.SIGUSR2)
    config = run_config(*QUIET, *data, *OPTIONS, f"runs_dir={tmp_path}")
    (tmp_path / "run").mkdir()
    assert run_job(tmp_path / "run", 0.0, config) == 130
    assert (
        f"interrupted (stopped by SIGUSR2); continue with: hydromel resume={tmp_path / 'run'}\n"
        in capfd.readouterr().err
    )


LATE = """
import sys, time
time.sleep(1)
from runner.terminal.command_line import exit_code
sys.exit(exit_code(lambda: time.sleep(60) or 0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_request_to_a_job_that_cannot_heed_it_yet_waits(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sweeps.process.job_command", lambda folder: [sys.executable, "-c", LATE])
    with tempfile.TemporaryFile() as output:
        with start_job(Path("unused"), output) as job:
            job.send_signal(number)
            assert job.wait(timeout=60) == 130
        output.seek(0)
        assert output.read() == b"interrupted\n"


JOB = """
import sys, time
from runner.terminal.interruption import interruption
interruption.heed()
with interruption.deferred():
    print("ready", flush=True)
    while not interruption.reason or sys.argv[1:]:
        time.sleep(0.01)
print(interruption.reason, flush=True)
sys.exit(130)
"""


@pytest.fixture
def job() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts a job which stops when it is asked to; `stubborn`: only by a second request."""
    processes = list[subprocess.Popen[bytes]]()

    def start(*stubborn: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", JOB, *stubborn], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("had_it", [False, True])  # from a terminal, or from Slurm
def test_a_sweep_passes_a_request_on(had_it: bool, job: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = job()
    if had_it:
        process.send_signal(signal.SIGINT)
    end_with_us(process)
    assert process.returncode == 130
    assert process.stdout is not None
    assert process.stdout.read() == (b"stopped by SIGINT\n" if had_it else b"stopped by SIGUSR1\n")


def test_a_second_request_ends_the_job_of_a_sweep(
    job: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, wait = job("stubborn"), subprocess.Popen.wait

    def interrupted(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    end_with_us(process)
    assert subprocess.Popen.wait is wait
    assert process.returncode not in (None, 0, -signal.SIGKILL)
