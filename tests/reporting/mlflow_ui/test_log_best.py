"""The best of the compared runs is logged as a model of MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reporting import compare
from reporting.mlflow_ui.log_best import best_of
from reporting.runs.run import read
from runner.common.errors import HydromelError
from runner.tracking import mlflow_store
from runner.tracking.mlflow_tracker import MlflowTracker
from tests.helpers.composed import label_files, run_as_command
from tests.helpers.run_folders import mlflow_node

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies
SMALL = ("train.epochs=1", "encoder=bow", "embedding.size=4", "baselines=false", "threads=1")


def change(path: Path, changed: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    changed(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def logged(tmp_path: Path, template: Path) -> tuple[Path, str]:
    """A run and a better copy of it, delivered to a store without a model; the folder of runs, and the store."""
    worse = run_as_command(tmp_path / "runs", *label_files(tmp_path), *SMALL)
    runs = tmp_path / "all"
    shutil.move(worse, runs / "worse")
    shutil.copytree(runs / "worse", runs / "better")

    def better(result: dict[str, Any]) -> None:
        result["run_id"] = "b" * 32
        result["metrics"]["valid"]["accuracy"] += 1.0
        result["metrics"]["test"]["accuracy"] -= 1.0

    change(runs / "better" / "result.json", better)
    change(runs / "better" / "run.json", lambda run: run.update(run_id="b" * 32))
    shutil.copy(template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    node = mlflow_node(uri, log_model=None, register=None)
    tracker = MlflowTracker(**{key: value for key, value in node.items() if key != "_target_"})
    for folder in (runs / "worse", runs / "better"):
        tracker.deliver(folder, final=True)
    return runs, uri


def test_the_model_of_the_best_run_is_logged_once(
    logged: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, uri = logged
    arguments = ["--out", str(tmp_path / "out"), "--log-best", "--register", "sentiment", "--no-mlflow"]
    assert compare.main([str(runs), *arguments]) == 1
    assert "these runs were not logged to MLflow; give --tracking-uri" in capsys.readouterr().err
    for _ in range(2):
        assert compare.main([str(runs), "mlflow:tests", "--tracking-uri", uri, *arguments]) == 0
    shown = capsys.readouterr().out
    assert "better (best accuracy on valid): models:/m-" in shown
    assert "registered as models:/sentiment@best (version 1)" in shown
    client = mlflow_store.open_store(uri, 10.0)
    (model,) = client.search_logged_models([client.get_experiment_by_name("tests").experiment_id])
    assert model.tags["hydromel.run_id"] == "b" * 32
    assert client.get_model_version_by_alias("sentiment", "best").source == model.artifact_location


def test_runs_that_cannot_be_ranked_together_are_refused(logged: tuple[Path, str], tmp_path: Path) -> None:
    runs, _ = logged
    found = [read(runs / name).run for name in ("worse", "better")]
    both = [run for run in found if run is not None]
    assert best_of(both).folder.name == "better"
    assert best_of(both[::-1]).folder.name == "better"
    change(runs / "worse" / "result.json", lambda result: result.update(dataset="other"))
    other = read(runs / "worse").run
    assert other is not None
    with pytest.raises(HydromelError, match="runs of one task, data set and metric can be ranked"):
        best_of([other, both[1]])
    assert compare.main([str(runs), "--out", str(tmp_path / "out"), "--register", "x"]) == 1
