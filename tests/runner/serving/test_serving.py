"""A run's model in MLflow answers as `hydromel-predict`, loaded in Python and behind a server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from runner import api
from runner.cli import predict
from runner.tracking import mlflow_model, mlflow_store
from runner.tracking.mlflow_tracker import MlflowTracker
from runner.tracking.run_folder import read_result, read_run
from tests.helpers.composed import label_files, run_as_command
from tests.helpers.run_folders import mlflow_node

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies
SMALL = ("train.epochs=2", "optimizer.lr=0.02", "encoder=conv", "encoder.filters=8", "baselines=false", "threads=1")
TEXTS = ["good the it", "bad bad dull sad the", "new words", ""]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[tuple[Path, str]]:
    """A run whose model is in a store of MLflow, and the store's URI, which is MLflow's default meanwhile."""
    folder = tmp_path_factory.mktemp("served")
    run = run_as_command(folder / "run", *label_files(folder), *SMALL)
    shutil.copy(template, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    deliver(run, uri, log_model="auto", register="demo")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield run, uri
        mlflow.set_tracking_uri(None)


def deliver(run: Path, uri: str, **options: Any) -> None:
    node = mlflow_node(uri, **options)
    MlflowTracker(**{key: value for key, value in node.items() if key != "_target_"}).deliver(run, final=True)


def models(uri: str) -> list[Any]:
    client = mlflow_store.open_store(uri, 10.0)
    return list(client.search_logged_models([client.get_experiment_by_name("tests").experiment_id]))


def answers(run: Path, folder: Path) -> list[dict[str, object]]:
    """What `hydromel-predict` says of the texts."""
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps({'text': text})}\n" for text in TEXTS), encoding="utf-8")
    arguments = ["--input", str(file), "--output", str(folder / "out"), "--format", "jsonl", "--probabilities"]
    assert predict.main([str(run), *arguments]) == 0
    rows = [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in ("label", "label_probability")} for row in rows]


def test_the_model_is_logged_once_and_made_of_no_pickle(logged: tuple[Path, str]) -> None:
    run, uri = logged
    deliver(run, uri, log_model="auto", register="demo")
    (model,) = models(uri)
    assert model.status == "READY"
    place = Path(model.artifact_location.removeprefix("file://"))
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt"))]
    in_run = {"checkpoints/best.safetensors", "example.json", "model_card.md", "resolved.yaml", "result.json"}
    assert {f"artifacts/run/{name}" for name in in_run} <= files
    described = yaml.safe_load((place / "MLmodel").read_text(encoding="utf-8"))
    assert json.loads(described["signature"]["outputs"]) == [{"type": "string", "name": "label", "required": True}]
    assert "hydromel==" in (place / "requirements.txt").read_text(encoding="utf-8")
    client = mlflow_store.open_store(uri, 10.0)
    assert str(client.get_model_version_by_alias("demo", "newest").version) == "1"
    (there,) = client.search_runs([model.experiment_id], f"tags.`hydromel.run_id` = '{read_run(run)['run_id']}'")
    assert [output.model_id for output in there.outputs.model_outputs] == [model.model_id]


def test_runs_of_a_sweep_log_no_model_by_themselves(logged: tuple[Path, str], tmp_path: Path) -> None:
    run, uri = logged
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "delivered.json").unlink()
    record = json.loads((run / "run.json").read_text(encoding="utf-8")) | {"run_id": "b" * 32, "sweep_id": "tour"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    deliver(tmp_path / "run", uri, log_model="auto")
    assert len(models(uri)) == 1


def test_a_model_that_was_left_unfinished_is_completed(
    logged: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, uri = logged
    client = mlflow_store.open_store(uri, 10.0)
    result = read_result(run)
    assert result is not None
    run_id = client.create_run(models(uri)[0].experiment_id).info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_model, "write_model", _fails)
        with pytest.raises(OSError, match="disk full"):
            mlflow_model.log_model(client, run_id, run, result)
    unfinished = [model.model_id for model in models(uri) if model.source_run_id == run_id]
    model_id = mlflow_model.log_model(client, run_id, run, result)
    assert [model_id] == unfinished
    assert client.get_logged_model(model_id).status == "READY"
    client.delete_logged_model(model_id)
    client.delete_run(run_id)


def _fails(*arguments: object) -> None:
    raise OSError("disk full")


def test_loaded_models_answer_as_the_command(logged: tuple[Path, str], tmp_path: Path) -> None:
    run, uri = logged
    expected = answers(run, tmp_path)
    from mlflow import pyfunc as flavour  # it warns as it is imported

    pyfunc = flavour.load_model("models:/demo@newest")
    frame = pd.DataFrame({"text": TEXTS})
    assert pyfunc.predict(frame, params={"probabilities": True}).to_dict("records") == expected
    assert pyfunc.predict(frame).to_dict("records") == [{"label": row["label"]} for row in expected]
    for wrong in ("txt", "Text"):  # MLflow drops it
        with pytest.raises(api.HydromelError, match="none of the columns"):
            pyfunc.predict(pd.DataFrame({wrong: TEXTS}))
    tokens = pd.DataFrame({"tokens": [text.split() for text in TEXTS]})
    assert pyfunc.predict(tokens, params={"probabilities": True}).to_dict("records") == expected
    (logged_model,) = models(uri)
    addresses = (f"models:/{logged_model.model_id}", f"runs:/{logged_model.source_run_id}/model")
    for address in ("models:/demo@newest", "models:/demo/1", *addresses):
        model = api.load(address, tracking_uri=uri)
        assert list(model.predict(TEXTS)) == [row["label"] for row in expected]
    with pytest.raises(api.HydromelError, match="models:/none@best: MLflow at"):
        api.load("models:/none@best", tracking_uri=uri)


def test_a_server_answers_as_the_command_alone_and_in_a_batch(logged: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = logged
    expected = answers(run, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = os.pathsep.join([str(Path(sys.executable).parent), str(Path(mlflow.__file__).parents[4] / "bin")])
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}  # mlflow calls uvicorn
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/demo@newest"]
    options = ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        batch = invoked(port, TEXTS)
        assert batch == expected
        assert [row for text in TEXTS for row in invoked(port, [text])] == batch
        with pytest.raises(urllib.error.HTTPError) as refused:
            invoked(port, TEXTS, column="txt")
        assert refused.value.code >= 400
        assert "none of the columns that this model reads" in refused.value.read().decode()
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def invoked(port: int, texts: list[str], column: str = "text") -> list[dict[str, object]]:
    """What the server says of texts."""
    body = {"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}}
    content = json.dumps({**body, "params": {"probabilities": True}}).encode()
    address, header = f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, content, header), timeout=60) as response:
        predictions: list[dict[str, object]] = json.load(response)["predictions"]
        return predictions
