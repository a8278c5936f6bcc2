"""Several trackers at once: each delivers by itself, and what one lacks is delivered to it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.sync import main
from runner.common.errors import HydromelError
from runner.config.compose import compose_config, for_hydra
from runner.config.instantiate import build
from runner.tracking.several import SeveralTrackers, parts_of
from runner.tracking.sync import deliver_pending, mark_undelivered
from runner.tracking.tracker import DeliveryError, JsonlTracker, NoTracker, Tracker
from tests.helpers.run_folders import finished


def several(tmp_path: Path) -> dict[str, Any]:
    """Trackers to `good.jsonl` and `other.jsonl`; the folder of a third one is a file, so it fails."""
    (tmp_path / "file").write_text("")
    paths = {"good": "good.jsonl", "bad": "file/bad.jsonl", "other": "other.jsonl"}
    node = {
        name: {"_target_": "runner.tracking.tracker.JsonlTracker", "path": str(tmp_path / path)}
        for name, path in paths.items()
    }
    return {"_target_": "runner.tracking.several.SeveralTrackers", "trackers": node}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    folder, tracker = finished(tmp_path / "run"), build(several(tmp_path), "tracker", {}, [], Tracker)
    tracker.check()
    with pytest.raises(DeliveryError, match=r"^cannot write .*bad\.jsonl: [^;]*$"):
        tracker.deliver(folder, final=True)
    assert lines(tmp_path / "good.jsonl") == lines(tmp_path / "other.jsonl") > 10
    assert tracker.describe().count("\n") == 2


def test_sync_repeats_only_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(tmp_path / "run", several(tmp_path))
    assert main([str(folder)]) == 1
    captured = capsys.readouterr()
    assert f"{folder} (good): delivered" in captured.out
    assert f"{folder} (bad): not delivered: cannot write" in captured.err
    assert "1 runs: 1 not delivered, 2 delivered" in captured.out
    (tmp_path / "file").unlink()
    before = (tmp_path / "good.jsonl").read_bytes()
    assert main([str(folder)]) == 0
    assert "1 runs: 1 delivered, 2 up to date" in capsys.readouterr().out
    assert (tmp_path / "good.jsonl").read_bytes() == before
    assert lines(tmp_path / "file" / "bad.jsonl") == lines(tmp_path / "good.jsonl")


def test_a_later_run_delivers_to_the_targets_that_it_has_too(tmp_path: Path) -> None:
    folder = finished(tmp_path / "runs" / "run", several(tmp_path))
    whole: SeveralTrackers = build(several(tmp_path), "tracker", {})
    (tmp_path / "file").unlink()
    mark_undelivered(tmp_path / "runs", folder)
    mine = JsonlTracker(path=str(tmp_path / "good.jsonl"))
    assert deliver_pending(tmp_path / "runs", mine) == 1
    assert deliver_pending(tmp_path / "runs", SeveralTrackers(trackers={"mine": mine, "none": NoTracker()})) == 0
    assert not (tmp_path / "other.jsonl").exists()
    assert deliver_pending(tmp_path / "runs", whole) == 1  # the note stayed
    assert lines(tmp_path / "other.jsonl") == lines(tmp_path / "good.jsonl")
    assert not [*(tmp_path / "runs" / ".undelivered").iterdir()]
    assert list(parts_of(whole)) == ["good", "bad", "other"]
    assert list(parts_of(mine).values()) == [mine]


def test_a_command_names_several(tmp_path: Path) -> None:
    path = "tracker.trackers.jsonl.path=mine.jsonl"
    config = compose_config(["tracker=[mlflow,jsonl]", path, "tracker.trackers.mlflow.experiment=x"])
    assert config.choices["tracker"] == "several"
    tracker = build(config.tracker, "tracker", {}, [], Tracker)
    assert [type(part).__name__ for part in parts_of(tracker).values()] == ["MlflowTracker", "JsonlTracker"]
    trackers: Any = json.loads(json.dumps(config.tracker))["trackers"]
    assert (trackers["mlflow"]["experiment"], trackers["jsonl"]["path"]) == ("x", "mine.jsonl")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracker=[mlflow,mlflow]", r"tracker=\[mlflow,mlflow\]: name each tracker once, as in tracker=\[mlflow,tens"),
        ("tracker=[]", "name each tracker once"),
        ("tracker=[several,mlflow]", "name each tracker once"),
        ("tracker=[../task/tag]", "give the name of one of its configs. Allowed: jsonl, mlflow, none"),
        ("tracker=[mlflow,null]", "name each tracker once"),
        ("tracker=[mlflow,mflow]", "mflow"),
    ],
)
def test_a_list_of_something_else_is_one_line(override: str, message: str) -> None:
    with pytest.raises(HydromelError, match=message) as caught:
        compose_config([override])
    assert "\n" not in str(caught.value)


def test_no_trackers_are_none() -> None:
    not_one: Any = {"x": object()}
    with pytest.raises(HydromelError, match=r"^tracker\.trackers\.x: object lacks check, deliver, describe, target"):
        SeveralTrackers(trackers=not_one)
    assert for_hydra("tracker=mlflow") == ["tracker=mlflow"]
    with pytest.raises(HydromelError, match=r"tracker\.trackers is empty; name some: tracker=\[mlflow,tensorboard\]"):
        SeveralTrackers(trackers={}).check()
