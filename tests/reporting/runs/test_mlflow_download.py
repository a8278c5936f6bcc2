"""Runs from MLflow: the same figures as from their folders, and an error of one line when there are none."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reporting import compare
from reporting.runs import mlflow_download
from runner.common import run_schema

pytestmark = pytest.mark.filterwarnings("ignore")  # by mlflow, about its dependencies


@pytest.fixture
def store(sweep: Path, tmp_path: Path) -> str:
    """An SQLite store with the sweep's runs, one failed run, and a sweep's report, which is not a run to compare."""
    with warnings.catch_warnings(action="ignore"):
        from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("demo", artifact_location=str(tmp_path / "artifacts"))
    for folder in sorted((sweep / "night").iterdir()):
        run = client.create_run(experiment, tags={run_schema.TAG_RUN_ID: f"{folder.name}-id"}).info.run_id
        for name in (run_schema.RUN, run_schema.RESULT, run_schema.METRICS, run_schema.RESOLVED):
            client.log_artifact(run, str(folder / name))
        client.set_terminated(run)
    client.set_terminated(client.create_run(experiment, tags={run_schema.TAG_RUN_ID: "lost"}).info.run_id, "FAILED")
    client.create_run(experiment)
    return uri


def test_mlflow(store: str, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("reporting.runs.mlflow_download.PAGE", 7)  # so that there are several pages
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert compare.main(["night", "--runs", str(sweep), "--out", str(local)]) == 0
    shutil.rmtree(sweep)
    assert compare.main(["mlflow:demo", "--tracking-uri", store, "--out", str(remote)]) == 0
    shown = capsys.readouterr().out
    reports = [json.loads((out / "report.json").read_text()) for out in (local, remote)]
    assert reports[0]["groups"] == reports[1]["groups"]
    assert [(name[:7], status) for name, status in reports[1]["unfinished"].items()] == [("mlflow:", "failed")]
    assert "Not finished, so left out: mlflow:" in shown

    assert compare.main(["mlflow:demos", "--tracking-uri", store]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "MLflow experiment 'demos' is unknown" in error
    assert "did you mean 'demo'?" in error


def test_what_examples_contribute_comes_with_a_run(sweep: Path, tmp_path: Path) -> None:
    there = next(iter((sweep / "night").iterdir()))
    (there / run_schema.OUTCOMES).write_bytes(b"any")

    class Client:
        def list_artifacts(self, run_id: str) -> list[Any]:
            return [SimpleNamespace(path=path.name) for path in there.iterdir()]

        def download_artifacts(self, run_id: str, name: str, folder: str) -> None:
            shutil.copy(there / name, folder)

    actual = mlflow_download._fetch(Client(), "id", "finished", tmp_path / "here")
    assert actual.run is not None
    assert (actual.run.folder / run_schema.OUTCOMES).read_bytes() == b"any"


def test_a_store_that_does_not_answer_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert compare.main(["mlflow:demo", "--tracking-uri", "http://me:secret@127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: MLflow at http://127.0.0.1:9: ")
    assert "secret" not in error
    assert error.count("\n") == 1
