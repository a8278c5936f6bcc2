import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.tracking import tracker
from runner.tracking.run_folder import read_metrics, write_json
from runner.tracking.tracker import DeliveryError, JsonlTracker, NoTracker, is_delivered
from tests.helpers.run_folders import finish, finished, log_epoch, start


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(folder: Path) -> list[dict[str, Any]]:
    run_id = json.loads((folder / run_schema.RUN).read_text())["run_id"]
    closing = {"run_id": run_id, "status": "finished", "result": json.loads((folder / run_schema.RESULT).read_text())}
    return [*({"run_id": run_id, **record} for record, _ in read_metrics(folder)), closing]


def test_nothing_is_sent_without_a_tracker(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    before = sorted(path.name for path in folder.iterdir())
    NoTracker().check()
    NoTracker().deliver(folder, final=True)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert is_delivered(folder, NoTracker())
    assert "not tracked" in NoTracker().describe()


def test_each_record_arrives_once_as_the_run_goes_on(tmp_path: Path) -> None:
    shared = JsonlTracker(path=str(tmp_path / "deep" / "runs.jsonl"))
    run, other = start(tmp_path / "a"), finished(tmp_path / "b")
    for epoch in (1, 2, 3):
        log_epoch(run, epoch)
        assert not is_delivered(run.path, shared)
        shared.deliver(run.path)
        assert is_delivered(run.path, shared)
        shared.deliver(run.path)
        shared.deliver(other)
    finish(run)
    assert not is_delivered(run.path, shared)
    shared.deliver(run.path, final=True)
    shared.deliver(run.path, final=True)
    actual = lines(tmp_path / "deep" / "runs.jsonl")
    assert [line for line in actual if line["run_id"] == run.run["run_id"]] == expected(run.path)
    assert [line for line in actual if line["run_id"] != run.run["run_id"]] == expected(other)
    assert "runs.jsonl" in shared.describe()


def kill_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, when: str) -> None:
    """Be killed at call number `call` of tracker.`name`: before it, in the middle (of a write), or after it."""
    real: Callable[..., None] = getattr(tracker, name)
    count = 0

    def killing(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count != call:
            return real(*arguments)
        if when == "middle":
            path, content = arguments
            real(path, content[: len(content) * 2 // 3])
        elif when == "after":
            real(*arguments)
        raise Killed

    monkeypatch.setattr(tracker, name, killing)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("delivered_before", [False, True])
@pytest.mark.parametrize(
    ("name", "call", "when"),
    [
        ("append", 1, "before"),
        ("append", 1, "middle"),
        ("append", 1, "after"),
        ("save_progress", 1, "before"),
        ("save_progress", 1, "after"),
    ],
)
def test_being_killed_at_any_point_loses_and_doubles_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
    when: str,
    delivered_before: bool,
    others: bool,
) -> None:
    shared = JsonlTracker(path=str(tmp_path / "runs.jsonl"))
    run = start(tmp_path / "a")
    log_epoch(run, 1)
    if delivered_before:
        shared.deliver(run.path)
    log_epoch(run, 2)
    finish(run)
    with monkeypatch.context() as patch:
        kill_at(patch, name, call, when)
        with pytest.raises(Killed):
            shared.deliver(run.path, final=True)
    if others:
        shared.deliver(finished(tmp_path / "b"))
    for _ in range(2):
        JsonlTracker(path=shared.path).deliver(run.path, final=True)
    assert [line for line in lines(tmp_path / "runs.jsonl") if line["run_id"] == run.run["run_id"]] == expected(
        run.path
    )


def test_a_relative_path_is_meant_from_where_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    folder = finished(tmp_path / "run")
    monkeypatch.chdir("/")
    JsonlTracker(path="runs.jsonl").deliver(folder)
    assert lines(tmp_path / "there" / "runs.jsonl") == expected(folder)
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(HydromelError, match=r"was started in .*/there, which does not exist on this machine.*--uri"):
        JsonlTracker(path="runs.jsonl").deliver(folder)


def test_what_cannot_be_delivered_is_one_line(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeliveryError, match=r"^cannot write .*file/runs\.jsonl: "):
        JsonlTracker(path=str(tmp_path / "file" / "runs.jsonl")).deliver(folder)
    for path in ("", str(tmp_path)):
        with pytest.raises(HydromelError, match=r"tracker\.path=.*name of a file"):
            JsonlTracker(path=path).check()
    (folder / run_schema.DELIVERED).write_text("[]")
    with pytest.raises(HydromelError, match=r"delivered\.json is damaged: .*; remove it"):
        JsonlTracker(path=str(tmp_path / "runs.jsonl")).deliver(folder)


def test_every_config_builds_a_tracker() -> None:
    configs = sorted((Path(__file__).parents[3] / "configs" / "tracker").glob("*.yaml"))
    assert [path.stem for path in configs] == ["jsonl", "mlflow", "none", "several", "tensorboard", "wandb"]
    for path in configs:
        build(yaml.safe_load(path.read_text()), "tracker", {})


@pytest.mark.parametrize("change", ["status", "metrics", "result", "plot"])
def test_whatever_changes_is_to_be_delivered(tmp_path: Path, change: str) -> None:
    folder, shared = finished(tmp_path / "run"), JsonlTracker(path=str(tmp_path / "runs.jsonl"))
    shared.deliver(folder)
    assert is_delivered(folder, shared)
    assert not is_delivered(folder, JsonlTracker(path=str(tmp_path / "others.jsonl")))
    if change == "status":
        write_json(
            folder / run_schema.RUN, json.loads((folder / run_schema.RUN).read_text()) | {"status": run_schema.FAILED}
        )
    elif change == "metrics":
        with (folder / run_schema.METRICS).open("a") as file:
            file.write('{"time": 1.0, "step": 99, "epoch": 9, "metrics": {"a": 1.0}}\n')
    else:
        (folder / {"result": run_schema.RESULT, "plot": f"{run_schema.PLOTS}/new.svg"}[change]).write_text("{}")
    assert not is_delivered(folder, shared)
