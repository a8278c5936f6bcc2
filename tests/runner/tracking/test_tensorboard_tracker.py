"""What TensorBoard reads of a run: every record once, whatever interrupts a delivery."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.tracking import tensorboard_tracker
from runner.tracking.fields import summary
from runner.tracking.run_folder import read_metrics, read_result
from runner.tracking.tensorboard_tracker import TensorboardTracker
from runner.tracking.tracker import DeliveryError, is_delivered
from tests.helpers.run_folders import finish, finished, log_epoch, start

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")


def events(file: Path) -> list[Any]:
    """Return what TensorBoard reads of an event file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return list(LegacyEventFileLoader(str(file)).Load())


def scalars(file: Path) -> list[tuple[str, int, float, float]]:
    return [
        (value.tag, event.step, event.wall_time, value.simple_value)
        for event in events(file)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def test_a_run_grows_in_one_file(tmp_path: Path) -> None:
    tracker, run = TensorboardTracker(log_dir=str(tmp_path / "logs")), start(tmp_path / "run")
    tracker.check()
    log_epoch(run, 1)
    tracker.deliver(run.path)
    (file,) = (tmp_path / "logs").glob("sweep-1/run-*/events.out.tfevents.*")
    early = file.read_bytes()
    log_epoch(run, 2)
    (run.path / run_schema.SYSTEM).write_text(
        '{"time": 5.0, "step": 0, "epoch": 0, "metrics": {"system/cpu_utilization_percentage": 50.0}}\n'
    )
    finish(run)
    assert not is_delivered(run.path, tracker)
    tracker.deliver(run.path, final=True)
    assert is_delivered(run.path, tracker)
    assert file.read_bytes().startswith(early), "a page that is open goes on reading"
    whole = file.read_bytes()
    tracker.deliver(run.path, final=True)
    assert file.read_bytes() == whole

    result = read_result(run.path)
    assert result is not None
    expected = [
        (name, record["step"], record["time"], value)
        for record, _ in read_metrics(run.path)
        for name, value in record["metrics"].items()
        if value is not None
    ]
    expected += [("system/cpu_utilization_percentage", 0, 5.0, 50.0)]
    there = scalars(file)
    assert [item[:3] for item in there[: len(expected)]] == [item[:3] for item in expected]
    assert [item[3] for item in there[: len(expected)]] == pytest.approx([item[3] for item in expected])
    assert {name: value for name, step, _, value in there if step == 10 and "/" in name}.keys() >= summary(
        result
    ).keys()
    (note,) = [value for event in events(file) for value in event.summary.value if value.tag == "run"]
    assert b"f1: test 18.50" in note.tensor.string_val[0]
    tags = [value.tag for event in events(file) for value in event.summary.value]
    assert tags.count("_hparams_/session_start_info") == 1


def test_an_interrupted_delivery_is_written_again_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(tmp_path / "run")
    shutil.copytree(folder, tmp_path / "again")
    first, second = (TensorboardTracker(log_dir=str(tmp_path / name)) for name in ("first", "second"))
    first.deliver(folder, final=True)
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(tensorboard_tracker, "save_progress", killed)
        with pytest.raises(KeyboardInterrupt):
            second.deliver(tmp_path / "again", final=True)
    (whole,), (torn,) = ([*(tmp_path / name).rglob("events*")] for name in ("first", "second"))
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size - 7)
    second.deliver(tmp_path / "again", final=True)
    assert torn.read_bytes() == whole.read_bytes()
    torn.unlink()
    second.deliver(tmp_path / "again", final=True)
    assert torn.read_bytes() == whole.read_bytes()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HydromelError, match=r"tracker\.log_dir=.*: a file; name a folder"):
        TensorboardTracker(log_dir=str(tmp_path / "file")).check()
    with pytest.raises(DeliveryError, match=r"^cannot write .*events\.out\.tfevents"):
        TensorboardTracker(log_dir=str(tmp_path / "file" / "logs")).deliver(finished(tmp_path / "run"))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_tracker, "find_spec", lambda name: None)
    with pytest.raises(HydromelError, match=r"needs TensorBoard: pip install hydromel\[tensorboard\]"):
        TensorboardTracker(log_dir="logs").check()
