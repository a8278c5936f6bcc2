"""Sweeps: every job in a process of its own; one that fails stops no other; what is finished is not run again."""

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
from tests.helpers.composed import tag_files

HYDROMEL = [sys.executable, "-c", "from runner.cli.train import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS = ["encoder.hidden=4", "embedding.size=4", "train.epochs=1", "tracker=none", "run_plots=null", "cache_dir=null"]


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*HYDROMEL, "-m", *tag_files(folder), *OPTIONS, "sweep.id=s", *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def runs(folder: Path, file: str) -> dict[str, dict[str, object]]:
    found = sorted((folder / "runs" / "s").glob(f"*/{file}"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in found}


def test_a_failing_job_stops_no_other_and_finished_ones_are_skipped(tmp_path: Path) -> None:
    first = sweep(tmp_path, "batching=padmask,stream,packed")  # streams need task=lm
    assert first.returncode == 1
    assert "batching=stream" in first.stderr
    assert "error: 1 of 3 jobs failed (stream-s1-" in first.stderr
    assert "Traceback" not in first.stderr
    status = {name.split("-")[0]: one["status"] for name, one in runs(tmp_path, run_schema.RUN).items()}
    assert status == {"packed": run_schema.FINISHED, "padmask": run_schema.FINISHED, "stream": run_schema.FAILED}
    processes = {one["pid"] for one in runs(tmp_path, run_schema.RUN).values()}
    assert len(processes) == 3
    assert all(one["sweep_id"] == "s" for one in runs(tmp_path, run_schema.RESULT).values())

    before = runs(tmp_path, run_schema.RESULT)
    again = sweep(tmp_path, "batching=padmask,packed,size1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished earlier, skipped") == 2
    after = runs(tmp_path, run_schema.RESULT)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before


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
    status = sorted(str(one["status"]) for one in runs(tmp_path, run_schema.RUN).values())
    assert status == [run_schema.FINISHED, run_schema.INTERRUPTED]
