"""Sweeps: every job in a process of its own; one that fails stops no other; what is finished is not run again.

Sweeps of one id at the same time share the jobs, and no job outlives its sweep.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.numpy import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.schema import RunConfig
from runner.sweeps import process
from runner.sweeps.jobs import SweepJobs, folder_name
from runner.sweeps.slots import cores
from runner.terminal.console import show_messages
from tests.helpers.composed import run_config, tag_files

HYDROMEL = [sys.executable, "-c", "from runner.cli.train import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS = ["encoder.hidden=4", "embedding.size=4", "train.epochs=1", "tracker=none", "run_plots=null", "cache_dir=null"]


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*HYDROMEL, "-m", *tag_files(folder), *OPTIONS, "sweep.id=s", *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def runs(folder: Path, file: str) -> dict[str, dict[str, object]]:
    result = sorted((folder / "runs" / "s").glob(f"*/{file}"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in result}


def test_a_failing_job_stops_no_other_and_finished_ones_are_skipped(tmp_path: Path) -> None:
    first = sweep(tmp_path, "batching=padmask,stream,packed")  # streams need task=lm
    assert first.returncode == 1
    assert "batching=stream" in first.stderr
    assert "error: 1 of 3 jobs failed (stream-s1-" in first.stderr
    assert "Traceback" not in first.stderr
    status = {name.split("-")[0]: run["status"] for name, run in runs(tmp_path, run_schema.RUN).items()}
    assert status == {"packed": run_schema.FINISHED, "padmask": run_schema.FINISHED}, "a mistake is no failed run"
    processes = {run["pid"] for run in runs(tmp_path, run_schema.RUN).values()}
    assert len(processes) == 2
    assert all(run["sweep_id"] == "s" for run in runs(tmp_path, run_schema.RESULT).values())

    before = runs(tmp_path, run_schema.RESULT)
    again = sweep(tmp_path, "batching=padmask,packed,size1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished earlier, skipped") == 2
    after = runs(tmp_path, run_schema.RESULT)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before

    if cores() > 1:  # the same jobs beside each other
        parallel = sweep(tmp_path, "batching=padmask,packed", "sweep.id=p", "sweep.jobs=2", "sweep.devices=auto")
        assert parallel.returncode == 0, parallel.stderr
        for name in before:
            file = Path(name, "checkpoints", "best.safetensors")
            beside, alone = (load_file(tmp_path / "runs" / sweep_id / file) for sweep_id in "ps")
            assert {key: value.tobytes() for key, value in beside.items()} == {
                key: value.tobytes() for key, value in alone.items()
            }
        results = [json.loads(path.read_text()) for path in (tmp_path / "runs/p").glob(f"*/{run_schema.RESULT}")]
        assert [result["provenance"]["jobs"] for result in results] == [2, 2]


def test_jobs_may_differ_in_the_place_of_their_data_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tag_files(tmp_path / name, rows=30)
    done = sweep(tmp_path, "data_dir=one,two", "train.max_updates=1", "dataset.train=train.conll,nowhere.conll")
    assert done.returncode == 1
    assert len(runs(tmp_path, run_schema.RESULT)) == 2
    assert "2 of 4 jobs failed" in done.stderr
    assert done.stderr.count("error: ") == 3


def test_a_job_that_does_not_resolve_stops_no_other(tmp_path: Path) -> None:
    done = sweep(tmp_path, "dataset.valid=valid.conll,???", "train.max_updates=1", "batching=padmask")
    assert done.returncode == 1
    assert "dataset.valid is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(runs(tmp_path, run_schema.RESULT)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_what_is_finished(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [*tag_files(tmp_path), *OPTIONS, "sweep.id=s", "train.epochs=1,500", "batching=padmask"]
    process = subprocess.Popen(
        [*HYDROMEL, "-m", *arguments], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while len(list((tmp_path / "runs").glob("s/*/checkpoints/last.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)  # to the command alone: it passes it on
    error = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "1 finished run(s) are kept; continue with sweep.id=s" in error
    status = sorted(str(run["status"]) for run in runs(tmp_path, run_schema.RUN).values())
    assert status == [run_schema.FINISHED, run_schema.INTERRUPTED]


def test_a_killed_sweep_takes_its_job_along_which_keeps_its_records(tmp_path: Path) -> None:
    arguments = [*tag_files(tmp_path), *OPTIONS, "sweep.id=s", "train.epochs=500", "batching=padmask"]
    process = subprocess.Popen([*HYDROMEL, "-m", *arguments], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "runs").glob("s/*/checkpoints/last.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while {run["status"] for run in runs(tmp_path, run_schema.RUN).values()} != {run_schema.INTERRUPTED}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


WHOLE = json.dumps(
    {
        **dict.fromkeys(("run_id", "task", "dataset", "embedding", "encoder", "batching"), "x"),
        "seed": 1,
        "quality": {"metric": "f1", "higher_is_better": True},
        "updates": {"count": 1, "digest": ""},
        "provenance": {"comparison_hash": ""},
    }
)
JOB = f"""
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with open(folder.parent / "started", "a") as file:
    file.write(folder.name + "\\n")
time.sleep(0.2)
(folder / "result.json").write_text({WHOLE!r})
"""


@pytest.fixture
def quick_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs note that they started, and finish without training."""
    monkeypatch.setattr(process, "job_command", lambda folder: [sys.executable, "-S", "-c", JOB, str(folder)])


def sweep_jobs(folder: Path) -> SweepJobs:
    sweep = SweepJobs()
    sweep.sweep = folder
    return sweep


def run(sweep: SweepJobs, config: RunConfig) -> bool:
    """Return True if the job is finished."""
    sweep.add(config, "")
    return folder_name(config) in sweep.finished


@pytest.mark.usefixtures("quick_jobs")
def test_two_sweeps_of_one_id_run_each_job_once(tmp_path: Path) -> None:
    configs = [run_config(f"seed={seed}") for seed in (1, 2, 3)]
    sweeps = [sweep_jobs(tmp_path), sweep_jobs(tmp_path)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda sweep: [run(sweep, config) for config in configs], sweeps))
    assert done == [[True] * 3] * 2
    assert [(sweep.code, len(sweep.finished)) for sweep in sweeps] == [(0, 3)] * 2
    started = (tmp_path / "started").read_text(encoding="utf-8").split()
    assert sorted(started) == sorted(map(folder_name, configs))


@pytest.mark.usefixtures("quick_jobs")
@pytest.mark.parametrize("finishes", [True, False])
def test_a_job_that_another_process_writes_is_waited_for(
    tmp_path: Path, finishes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show_messages()
    config = run_config()
    folder = tmp_path / folder_name(config)
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(folder / run_schema.LOCK):
            waiting = pool.submit(run, sweep_jobs(tmp_path), config)
            time.sleep(1.2)
            assert not waiting.done()
            if finishes:
                (folder / run_schema.RESULT).write_text(WHOLE, encoding="utf-8")
        assert waiting.result()
    assert (tmp_path / "started").exists() == (not finishes)
    assert capsys.readouterr().out.startswith(f"{folder.name}: another process runs it; waiting for its end\n")


@pytest.mark.usefixtures("quick_jobs")
def test_a_job_with_a_damaged_result_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    config = run_config()
    (tmp_path / folder_name(config)).mkdir()
    (tmp_path / folder_name(config) / run_schema.RESULT).write_text("{", encoding="utf-8")
    sweep = sweep_jobs(tmp_path)
    sweep.add(config, "seed=1")
    assert (sweep.code, list(sweep.failed)) == (1, ["seed=1"])
    assert "result.json is damaged: it is not JSON" in capsys.readouterr().err


def test_a_sweep_without_a_name_is_refused(tmp_path: Path) -> None:
    sweep = sweep_jobs(tmp_path)
    with pytest.raises(HydromelError, match=r"^sweep\.id=null is for single runs; "):
        sweep.add(run_config("sweep.id=null"), "seed=1")
    assert not list(tmp_path.iterdir())


def test_a_sweep_whose_folder_cannot_be_written_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    (tmp_path / "file").touch()
    sweep = sweep_jobs(tmp_path / "file")
    sweep.add(run_config(), "seed=1")
    assert sweep.code == 1
    assert capsys.readouterr().err.startswith(f"error: cannot write {tmp_path}/file/")
