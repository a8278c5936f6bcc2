"""What Weights & Biases gets of a run, in the files of its offline mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.common.errors import HydromelError
from runner.tracking import wandb_tracker
from runner.tracking.run_folder import read_metrics
from runner.tracking.tracker import is_delivered
from runner.tracking.wandb_tracker import WandbTracker
from tests.helpers.run_folders import finish, log_epoch, start


def tracker_for(folder: Path, mode: Any = "offline") -> WandbTracker:
    return WandbTracker(project="tests", entity=None, mode=mode, dir=str(folder), timeout_s=20.0, retry_s=1.0)


def test_a_run_is_there_with_history_figures_and_options(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    tracker, run = tracker_for(tmp_path / "place"), start(tmp_path / "run")
    tracker.check()
    log_epoch(run, 1)
    tracker.deliver(run.path)
    log_epoch(run, 2)
    finish(run)
    tracker.deliver(run.path, final=True)
    assert is_delivered(run.path, tracker)
    (file,) = (tmp_path / "place" / "wandb").glob(f"offline-run-*/run-{run.run['run_id']}.wandb")
    content = file.read_bytes()
    for text in ("tests", "train/loss", "valid/f1", "baselines/most_frequent_tag/f1", "train.epochs", "sweep-1"):
        assert text.encode() in content, text
    assert "wandb sync" in tracker.describe()


def test_each_record_is_sent_once_with_its_step_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, float] = {}
    rows: list[tuple[int, dict[str, float]]] = []

    class Fake:
        summary = figures

        def log(self, values: dict[str, float], step: int) -> None:
            rows.append((step, values))

        def finish(self, exit_code: int) -> None:
            rows.append((-1, {"exit_code": exit_code}))

    monkeypatch.setattr(WandbTracker, "_connected", lambda self, folder: Fake())
    run = start(tmp_path / "run")
    for epoch in (1, 2):
        log_epoch(run, epoch)
        tracker_for(tmp_path).deliver(run.path)  # of another process each
    finish(run)
    tracker_for(tmp_path).deliver(run.path, final=True)
    records = [record for record, _ in read_metrics(run.path)]
    assert [step for step, _ in rows] == [*(record["step"] for record in records), -1]
    assert [values["_timestamp"] for _, values in rows[:-1]] == [record["time"] for record in records]
    assert not any("valid/broken" in values for _, values in rows)
    assert figures["test/f1"] == 18.5
    assert rows[-1][1] == {"exit_code": 0}


def test_without_a_key_it_does_not_ask_in_the_middle_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_tracker, "find_spec", lambda name: object())
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(
        HydromelError, match=r"no key for Weights & Biases; run `wandb login`, .* tracker\.mode=offline"
    ):
        tracker_for(tmp_path, "online").check()
    tracker_for(tmp_path).check()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    tracker_for(tmp_path, "online").check()
    (tmp_path / "netrc").write_text("machine elsewhere login user password secret\n")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    tracker_for(tmp_path, "online").check()
    assert "secret" not in json.dumps(tracker_for(tmp_path, "online").describe())
    monkeypatch.setattr(wandb_tracker, "find_spec", lambda name: None)
    with pytest.raises(HydromelError, match=r"needs W&B: pip install hydromel\[wandb\]"):
        tracker_for(tmp_path).check()
