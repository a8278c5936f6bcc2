import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.common import files, run_schema
from runner.common.errors import HydromelError
from runner.common.files import cut_torn_line, write_json
from runner.common.records import RESULT_KEYS
from runner.tracking.fields import artifacts
from runner.tracking.run_folder import (
    RunFolder,
    how_it_ended,
    is_alive,
    mark_dead,
    read_metrics,
    read_result,
    read_run,
)
from tests.helpers.run_folders import log_epoch, result, start


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / run_schema.METRICS).read_text().splitlines()]


def test_a_run_writes_all_its_files(tmp_path: Path) -> None:
    with start(tmp_path / "deep" / "run") as run:
        log_epoch(run, 1)
        assert read_run(run.path) == run.run
        assert read_run(run.path)["status"] == run_schema.RUNNING
        assert read_result(run.path) is None
        run.write_result(result(run))
        run.set_status(run_schema.FINISHED)
    assert read_run(run.path)["status"] == run_schema.FINISHED
    assert read_run(run.path)["ended"] >= read_run(run.path)["created"]
    assert set(read_result(run.path) or {}) == {*RESULT_KEYS, "counters"}
    assert [record["step"] for record in records(run.path)] == [1, 2, 3, 4, 5, 5]
    assert set(records(run.path)[0]) == {"time", "step", "epoch", "metrics"}


def test_tables_go_aside_with_their_result_and_reach_mlflow(tmp_path: Path) -> None:
    tables, earlier = tmp_path / run_schema.TABLES, tmp_path / run_schema.EARLIER_TABLES
    with start(tmp_path) as run:
        for number in range(3):
            run.set_result_aside()
            assert not tables.exists()
            assert [path.name for path in earlier.glob("*")] == [f"{number - 1}.parquet"] * bool(number)
            tables.mkdir()
            (tables / f"{number}.parquet").touch()
            run.write_result(result(run))
    assert (tables / "2.parquet", run_schema.TABLES) in artifacts(tmp_path)


def test_values_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.log(1, 1, {"a": float("nan"), "b": float("inf"), "c": 0.1})
        run.flush()
        run.write_result({"x": [float("-inf"), (1.0, float("nan"))], "y": {"z": float("inf")}})
    assert records(tmp_path)[0]["metrics"] == {"a": None, "b": None, "c": 0.1}
    assert json.loads((tmp_path / run_schema.RESULT).read_text()) == {"x": [None, [1.0, None]], "y": {"z": None}}
    assert "NaN" not in (tmp_path / run_schema.METRICS).read_text() + (tmp_path / run_schema.RESULT).read_text()


def test_nothing_is_recorded_twice_after_a_resume(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        log_epoch(run, 1)
        log_epoch(run, 2)
    before, identity = records(tmp_path), run.run
    with start(tmp_path) as again:
        log_epoch(again, 2)  # goes on from a checkpoint older than the last records
        log_epoch(again, 3)
        again.log(15, 3, {"train/loss": 7.0, "test/f1": 1.0})  # one name is new at this step
        again.flush()
    assert records(tmp_path)[: len(before)] == before
    pairs = [(record["step"], name) for record in records(tmp_path) for name in record["metrics"]]
    assert len(pairs) == len(set(pairs))
    assert records(tmp_path)[-1]["metrics"] == {"test/f1": 1.0}
    kept = ("run_id", "created", "cwd")
    assert [again.run[key] for key in kept] == [identity[key] for key in kept]
    assert again.run["status"] == run_schema.RUNNING


@pytest.mark.parametrize(
    "torn", ['{"time": 1, "st', "\0\0", '{"time": 1.0, "step": 6, "epoch": 2, "metrics": {"a": 1}}']
)
def test_a_torn_last_line_is_not_there(tmp_path: Path, torn: str) -> None:
    with start(tmp_path) as run:
        log_epoch(run, 1)
    whole = (tmp_path / run_schema.METRICS).read_text()
    (tmp_path / run_schema.METRICS).write_text(whole + torn)
    read = list(read_metrics(tmp_path))
    assert [record for record, _ in read] == [json.loads(line) for line in whole.splitlines()]
    assert read[-1][1] == len(whole)
    start(tmp_path).close()
    assert (tmp_path / run_schema.METRICS).read_text() == whole


@pytest.mark.parametrize("content", [b"", b"torn", b"a\n", b"a\nb", b"x" * 200_000, b"a\n" + b"x" * 200_000, b"\n\n"])
def test_cutting_a_torn_line_agrees_with_the_obvious(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    cut_torn_line(path)
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1]


def test_records_are_read_on_from_any_byte_given(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        log_epoch(run, 1)
    everything = list(read_metrics(tmp_path))
    for place, (_, end) in enumerate(everything):
        assert list(read_metrics(tmp_path, end)) == everything[place + 1 :]
    assert list(read_metrics(tmp_path, 10**9)) == everything


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    start(tmp_path).close()
    (tmp_path / run_schema.METRICS).write_text("[]\n")
    with pytest.raises(HydromelError, match=r"metrics\.jsonl.* is damaged: \[\] should be an object") as caught:
        list(read_metrics(tmp_path))
    (tmp_path / run_schema.RUN).write_text("{")
    with pytest.raises(HydromelError, match=r"run\.json is damaged: it is not JSON"):
        read_run(tmp_path)
    (tmp_path / run_schema.RUN).write_text("{}")
    with pytest.raises(HydromelError, match="it has no 'run_id'"):
        read_run(tmp_path)
    with pytest.raises(HydromelError, match=r"not a run's folder: it has no run\.json"):
        read_run(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path)
    log_epoch(run, 1)
    before = (tmp_path / run_schema.METRICS).read_bytes(), (tmp_path / run_schema.RUN).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run.log(6, 2, {"train/loss": 0.5})
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(HydromelError, match=r"^cannot write .*metrics\.jsonl: No space left on device$"):
        run.flush()
    with pytest.raises(HydromelError, match=r"^cannot write .*run\.json: No space left on device$"):
        run.set_status(run_schema.FAILED)
    assert before == ((tmp_path / run_schema.METRICS).read_bytes(), (tmp_path / run_schema.RUN).read_bytes())
    assert not list(tmp_path.glob(".run.json*"))
    monkeypatch.undo()
    run.close()
    assert records(tmp_path)[-1]["metrics"] == {"train/loss": 0.5}
    with pytest.raises(HydromelError, match="cannot write /dev/full"):
        write_json(Path("/dev/full/x"), {})


def test_a_run_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with start(tmp_path):
        assert is_alive(tmp_path)
        assert mark_dead(tmp_path)["status"] == run_schema.RUNNING
        with pytest.raises(HydromelError, match="being written by another process"):
            start(tmp_path)
    assert not is_alive(tmp_path)


def test_a_killed_run_is_known_to_be_dead(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from runner.tracking.run_folder import RunFolder\n"
        "run = RunFolder.open(Path(sys.argv[1]))\n"
        "run.begin(name='x', experiment=None, sweep_id=None, tags={}, tracker={})\n"
        "run.log(1, 1, {'a': 1.0}); run.flush(); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert is_alive(tmp_path)
        assert read_run(tmp_path)["pid"] == process.pid
        process.send_signal(signal.SIGKILL)
    assert not is_alive(tmp_path)
    assert read_run(tmp_path)["status"] == run_schema.RUNNING
    run = mark_dead(tmp_path)
    assert run == read_run(tmp_path)
    assert (run["status"], run["ended"]) == (run_schema.INTERRUPTED, records(tmp_path)[0]["time"])
    with start(tmp_path) as resumed:
        assert (resumed.run["status"], resumed.run["error"]) == (run_schema.RUNNING, None)


def test_a_run_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    start(tmp_path).close()
    write_json(tmp_path / run_schema.RUN, read_run(tmp_path) | {"host": "elsewhere"})
    assert mark_dead(tmp_path)["status"] == run_schema.RUNNING


def test_a_run_with_a_result_is_finished(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.write_result(result(run))  # killed before its status was written
    assert read_run(tmp_path)["status"] == run_schema.FINISHED
    assert read_run(tmp_path)["ended"] == os.stat(tmp_path / run_schema.RESULT).st_mtime


def test_the_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HydromelError, match=r"cannot write .*file/run: Not a directory"):
        RunFolder.open(tmp_path / "file" / "run")


def test_damaged_words_about_an_end_stay_short() -> None:
    damaged: Any = {"run_id": "a", "status": "fin" + "9" * 5000, "error": "\x1b[2J" + "8" * 5000}
    said = how_it_ended(damaged)
    assert said.startswith("fin999")
    assert said.isprintable()
    assert len(said) < 1000
