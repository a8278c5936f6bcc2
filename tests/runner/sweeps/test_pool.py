"""Several jobs of a sweep at a time: slots, order, output, failures, and no job that outlives its sweep.

The jobs are programs that train nothing; `test_jobs.py` compares real ones with those of a sweep without a pool.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.sweeps import process, slots
from runner.sweeps.jobs import SweepJobs, _figure, _look, folder_name
from runner.sweeps.pool import Pool
from runner.sweeps.process import reason
from runner.sweeps.slots import Slot
from runner.terminal.console import show_messages
from runner.terminal.progress import Stage
from tests.helpers.composed import run_config
from tests.runner.sweeps.test_jobs import WHOLE

# waits for the file `go` (seed 9: fails at once), then finishes; ends in order when asked to, or when its parent dies
JOB = f"""
import os, pathlib, signal, sys, threading, time
folder = pathlib.Path(sys.argv[1])
def ended(*_):
    (folder / "ended").write_text("in order")
    os._exit(130)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, ended)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())  # a job starts with signals that wait
threading.Thread(target=lambda: (os.read(0, 1), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
threads, gpu = (os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"))
with open(folder.parent / "started", "a") as file:
    file.write(f"{{folder.name}} {{threads}} {{gpu}}\\n")
print("working", flush=True)
if "-s9-" in folder.name:
    print("error: the loss is nan at update 3", flush=True)
    sys.exit(1)
while not (folder.parent / "go").exists():
    time.sleep(0.01)
(folder / "result.json").write_text({WHOLE!r})
"""
COMMAND = f"""
import sys
from runner.sweeps import process, slots
slots.cores, slots.visible_gpus = (lambda: 4), (lambda: [])
process.job_command = lambda folder: [sys.executable, "-S", "-c", {JOB!r}, str(folder)]
from runner.cli.train import main
main()
"""
OPTIONS = ["task=tag", "tracker=none", "cache_dir=null", "sweep.id=s"]


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", COMMAND, "-m", *OPTIONS, *arguments]
    return subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: object) -> None:
    end = time.monotonic() + 60
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def started(sweep: Path) -> list[list[str]]:
    path = sweep / "started"
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_its_sweep_and_the_next_one_does_what_is_missing(
    tmp_path: Path, number: signal.Signals
) -> None:
    sweep = tmp_path / "runs" / "s"
    running = command(tmp_path, "sweep.jobs=2", "seed=9,1,2,3")
    wait_for(lambda: len(started(sweep)) == 3)
    assert [name.split("-")[1] for name, *_ in started(sweep)][-1] == "s2", "in the order of the sweep"
    running.send_signal(number)
    output, errors = running.communicate()
    wait_for(lambda: len(list(sweep.glob("*/ended"))) == 2)
    if number != signal.SIGKILL:
        assert running.returncode == 130
        assert errors.splitlines()[-1] == "interrupted; 0 finished run(s) are kept; continue with sweep.id=s"
        assert "Traceback" not in errors
    assert output.startswith("2 jobs at a time, each with 2 threads; their speeds are not comparable: to time runs, ")
    (sweep / "go").touch()
    (sweep / "started").unlink()
    if number == signal.SIGTERM:
        done = command(tmp_path, "sweep.jobs=2", "seed=1,2,9,3")
        output, errors = done.communicate()
        assert done.returncode == 1
        failing = next(name for name, *_ in started(sweep) if "-s9-" in name)
        assert f"{failing} | working\n" in output
        assert errors.splitlines() == [
            f"{failing} | error: the loss is nan at update 3",
            f"failed: {failing}: the loss is nan at update 3",
            f"error: 1 of 4 jobs failed ({failing}); the others are kept, and sweep.id=s runs only what is missing",
        ]
        assert len(started(sweep)) == 4
        assert {threads for _, threads, _ in started(sweep)} <= {"1", "2"}
        again = command(tmp_path, "sweep.jobs=2", "seed=1,2,3")
        assert again.communicate()[0].count("finished earlier, skipped") == 3
        assert len(started(sweep)) == 4


def test_a_killed_job_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_messages()
    monkeypatch.setattr(slots, "cores", lambda: 2)
    monkeypatch.setattr(slots, "visible_gpus", list)
    kill = "import os, sys; folder = sys.argv[1]; '-s2-' in folder and os.kill(os.getpid(), 9)\n"
    finish = f"open(folder + '/result.json', 'w').write({WHOLE!r})"
    monkeypatch.setattr(process, "job_command", lambda folder: [sys.executable, "-S", "-c", kill + finish, str(folder)])
    jobs = SweepJobs()
    jobs.sweep = tmp_path
    configs = [run_config(f"seed={seed}", "sweep.id=s", "sweep.jobs=2") for seed in (1, 2, 3)]
    with jobs:
        for config in configs:
            jobs.add(config, "")
    assert sorted(jobs.finished) == sorted(folder_name(configs[place]) for place in (0, 2))
    assert jobs.failed == {folder_name(configs[1]): "killed by SIGKILL"}
    assert f"error: {folder_name(configs[1])}: killed by SIGKILL\n" in capsys.readouterr().err


def test_slots_divide_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 5)
    monkeypatch.setattr(slots, "visible_gpus", list)
    assert slots.slots("sweep.jobs", 1, "auto", "auto") == [Slot()]
    assert slots.slots("sweep.jobs", 2, "auto", "auto") == [Slot(None, 2)] * 2
    with pytest.raises(HydromelError, match=r"^sweep\.jobs=6 is more than the 5 cores of this machine"):
        slots.slots("sweep.jobs", 6, "auto", "auto")
    with pytest.raises(HydromelError, match=r"^sweep\.devices=\[0\]: this machine has no GPU, and no number 0$"):
        slots.slots("sweep.jobs", 1, [0], "auto")
    monkeypatch.setattr(slots, "visible_gpus", lambda: ["4", "GPU-a"])
    assert slots.slots("sweep.jobs", 2, "auto", "cuda") == [Slot("4", 2), Slot("GPU-a", 2)]
    assert slots.slots("sweep.jobs", 4, [0, 0, 1, 1], "auto") == [Slot(gpu, 1) for gpu in ("4", "4", "GPU-a", "GPU-a")]
    assert slots.slots("sweep.jobs", 1, [1], "auto") == [Slot("GPU-a", None)]
    assert slots.slots("sweep.jobs", 2, "auto", "cpu") == [Slot(None, 2)] * 2
    with pytest.raises(
        HydromelError, match=r"more than 2 GPUs; give sweep\.jobs=2, or .* sweep\.devices=\[0, 0, 1, 1]"
    ):
        slots.slots("sweep.jobs", 3, "auto", "auto")
    with pytest.raises(HydromelError, match=r"has GPUs 0 to 1, and no number 7"):
        slots.slots("search.jobs", 2, [0, 7], "auto")
    for jobs, devices in ((2, "auto"), (1, [1])):
        with pytest.raises(
            HydromelError, match=rf"^sweep\.jobs={jobs}: each job has one GPU, and ranks=2 need one each"
        ):
            slots.slots("sweep.jobs", jobs, devices, "auto", 2)
    assert slots.slots("sweep.jobs", 1, "auto", "auto", 2) == [Slot()]
    assert slots.slots("sweep.jobs", 2, "auto", "cpu", 2) == [Slot(None, 2)] * 2
    with pytest.raises(HydromelError, match="which jobs with device=cpu do not use"):
        slots.slots("sweep.jobs", 2, [0, 1], "cpu")


def test_a_slot_is_told_to_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Slot("3", 2).environment() == {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Slot(None, 2).environment() == {"OMP_NUM_THREADS": "1"}
    assert Slot().environment() == {}


def test_gpus_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slots, "_DRIVERS", (str(tmp_path / "none"),))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-a")
    assert slots.visible_gpus() == []
    monkeypatch.setattr(slots, "_DRIVERS", (str(tmp_path),))
    assert slots.visible_gpus() == ["2", "GPU-a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert slots.visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(slots, "_COUNT", "print(3)")
    assert slots.visible_gpus() == ["0", "1", "2"]


def test_an_error_in_a_thread_is_not_lost() -> None:
    def fail(slot: Slot) -> None:
        raise RuntimeError(f"in {slot.threads}")

    with pytest.raises(RuntimeError, match="in 1"), Pool([Slot(threads=1)] * 2) as pool:
        pool.add(fail)


def test_reasons_come_from_the_folder(tmp_path: Path) -> None:
    assert reason(tmp_path, -signal.SIGKILL) == "killed by SIGKILL"
    assert reason(tmp_path, 130) == "interrupted"
    assert reason(tmp_path, 3) == "it ended with code 3"
    console = tmp_path / run_schema.CONSOLE
    console.write_text("epoch 1\nValueError: x\n", encoding="utf-8")
    assert reason(tmp_path, 1) == "ValueError: x"
    run = {"run_id": "a", "created": 0.0, "status": "failed", "error": "nan"}
    (tmp_path / run_schema.RUN).write_text(json.dumps(run), encoding="utf-8")
    assert reason(tmp_path, 1) == "nan"
    console.write_text("error: no file\nValueError: x\n", encoding="utf-8")
    assert reason(tmp_path, 1) == "no file"


def test_too_large_a_pool_is_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, "sweep.jobs=5", "seed=1,2")
    output, errors = done.communicate()
    line = "error: sweep.jobs=5 is more than the 4 cores of this machine; on a CPU each job needs one\n"
    assert (done.returncode, output, errors) == (1, "", line)
    assert not list(tmp_path.glob("runs/s/*/"))


def test_a_jobs_bar_follows_its_records(tmp_path: Path) -> None:
    def record(step: int, epoch: int, key: str) -> str:
        return json.dumps({"time": 0.0, "step": step, "epoch": epoch, "metrics": {key: 1.0}}) + "\n"

    bar, file = Stage("job", 3), tmp_path / run_schema.METRICS
    assert _look(tmp_path, 0, bar) == 0
    file.write_text(record(20, 1, "train/loss"), encoding="utf-8")
    read = _look(tmp_path, 0, bar)
    assert (read, bar.done, bar.detail) == (file.stat().st_size, 0, "epoch 1  update 20")
    with file.open("a", encoding="utf-8") as more:
        more.write(record(40, 2, "train/loss") + record(40, 2, "valid/f1"))
    assert _look(tmp_path, read, bar) == file.stat().st_size
    assert (bar.done, bar.detail) == (2, "epoch 2  update 40")
    result = json.loads(WHOLE) | {"metrics": {"valid": {"f1": 73.5}}}
    result["quality"]["unit"] = "%"
    (tmp_path / run_schema.RESULT).write_text(json.dumps(result), encoding="utf-8")
    assert _figure(tmp_path) == ", valid f1 73.50"
