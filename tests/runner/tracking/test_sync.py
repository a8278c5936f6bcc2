import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner.tracking.tracker
from runner.cli.sync import main
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.tracking import mlflow_store
from runner.tracking.run_folder import read_run
from runner.tracking.sync import deliver_pending
from runner.tracking.tracker import DELIVERED, DeliveryError, JsonlTracker, is_delivered
from tests.helpers.run_folders import finish, finished, log_epoch, mlflow_node, start

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies, as the tests look into it


def jsonl(path: Path) -> dict[str, Any]:
    return {"_target_": "runner.tracking.tracker.JsonlTracker", "path": str(path)}


def sync(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def arrived(path: Path) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        runs.setdefault(json.loads(line)["run_id"], []).append(json.loads(line))
    return runs


def test_each_run_goes_to_its_own_tracker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = finished(Path("runs/sweep/1"), jsonl(tmp_path / "a")), finished(Path("runs/2"), jsonl(tmp_path / "b"))
    finished(Path("runs/3"))
    assert sync() == 0
    output = capsys.readouterr().out.splitlines()
    assert sorted(output[:3]) == ["runs/2: delivered", "runs/3: no tracker", "runs/sweep/1: delivered"]
    assert output[3] == "3 runs: 2 delivered, 1 no tracker"
    assert [list(arrived(tmp_path / name)) for name in "ab"] == [[read_run(one)["run_id"]], [read_run(two)["run_id"]]]
    assert sync("runs/2", "runs") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 runs: 2 up to date, 1 no tracker"


def test_a_run_that_lives_is_left_alone_and_one_that_died_is_marked(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    living, dead = start(tmp_path / "runs" / "living", jsonl(shared)), start(tmp_path / "runs" / "dead", jsonl(shared))
    for run in (living, dead):
        log_epoch(run, 1)
    dead.close()
    assert sync(tmp_path / "runs") == 0
    assert [line.get("status") for line in arrived(shared)[dead.run["run_id"]]][-1] == run_schema.INTERRUPTED
    assert set(arrived(shared)) == {dead.run["run_id"]}
    assert (read_run(living.path)["status"], read_run(dead.path)["status"]) == (
        run_schema.RUNNING,
        run_schema.INTERRUPTED,
    )
    finish(start(dead.path, jsonl(shared)))
    finish(living)
    assert sync(tmp_path / "runs") == 0
    closings = [[line["status"] for line in lines if "status" in line] for lines in arrived(shared).values()]
    assert sorted(closings) == [[run_schema.FINISHED], [run_schema.INTERRUPTED, run_schema.FINISHED]]


def test_what_cannot_be_delivered_is_told_and_the_others_are_delivered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    finished(runs / "good", jsonl(tmp_path / "shared"))
    finished(runs / "evil", {"_target_": "os.system", "command": "touch broken"})
    finished(runs / "typo", jsonl(tmp_path / "shared") | {"pfad": "x"})
    (finished(runs / "bare") / run_schema.RESOLVED).unlink()
    (finished(runs / "damaged") / run_schema.RUN).write_text("{")
    assert sync(runs) == 1
    captured = capsys.readouterr()
    assert f"{runs}/good: delivered" in captured.out
    assert captured.out.splitlines()[-1] in (
        "5 runs: 1 delivered, 4 not delivered",
        "5 runs: 4 not delivered, 1 delivered",
    )
    errors = sorted(captured.err.splitlines())
    assert [line.removeprefix(f"{runs}/").partition(":")[0] for line in errors] == ["bare", "damaged", "evil", "typo"]
    for line, reason in zip(
        errors,
        (
            "resolved.yaml: cannot be read (No such file or directory)",
            "damaged",
            "_target_=os.system: not allowed",
            "pfad",
        ),
        strict=True,
    ):
        assert reason in line


def test_a_tracker_that_has_moved_since_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing within its options is run."""
    moved = jsonl(tmp_path / "shared") | {"_target_": "runner.elsewhere.JsonlTracker"}
    folder = finished(tmp_path / "runs" / "moved", moved)
    assert sync(tmp_path / "runs") == 0
    assert list(arrived(tmp_path / "shared")) == [read_run(folder)["run_id"]]
    finished(tmp_path / "evil", moved | {"path": {"_target_": "runner.cli.sync.main", "arguments": ["x"]}})
    assert sync(tmp_path / "evil") == 1
    assert "tracker.path._target_=runner.cli.sync.main: not allowed in a saved run" in capsys.readouterr().err


def test_bad_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync(tmp_path / "nowhere") == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert sync(tmp_path, "--uri", "mlruns") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert sync(tmp_path) == 0
    assert capsys.readouterr().out == "0 runs: none found\n"


def test_a_uri_given_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = finished(tmp_path / "run", jsonl(tmp_path / "shared"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        assert sync(folder, "--uri", "sqlite:///mlflow.db", "--experiment", "moved", "--again") == 0
    client, experiment_id = mlflow_store.connect(f"sqlite:///{tmp_path}/here/mlflow.db", "moved", None, 10.0)
    assert len(client.search_runs([experiment_id])) == 1
    assert not (tmp_path / "shared").exists()


def test_a_later_run_delivers_what_is_pending_for_the_same_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    mine = [finished(tmp_path / "runs" / name, jsonl(here)) for name in ("1", "2")]
    finished(tmp_path / "runs" / "3", jsonl(elsewhere))
    finished(tmp_path / "runs" / "4")
    (finished(tmp_path / "runs" / "5") / run_schema.RUN).write_text("{")
    tracker = JsonlTracker(path=str(here))
    tracker.deliver(mine[0])
    assert deliver_pending(tmp_path / "runs", tracker) == 1
    assert deliver_pending(tmp_path / "runs", tracker) == 0
    assert set(arrived(here)) == {read_run(folder)["run_id"] for folder in mine}
    assert not elsewhere.exists()
    (mine[1] / DELIVERED).unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner.tracking.tracker, "append", full)
    with pytest.raises(DeliveryError):
        deliver_pending(tmp_path / "runs", tracker)
    with pytest.raises(HydromelError, match="no such folder"):
        deliver_pending(tmp_path / "nowhere", tracker)


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server, killed at the end, as servers go away."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (folder / "log").open("ab")
    process = subprocess.Popen(
        command, env=os.environ | quiet, stdout=log, stderr=log, cwd=folder, start_new_session=True
    )
    try:
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the server and its worker: a session of their own
        process.wait()
        log.close()


def test_a_server_that_goes_away_and_comes_back_gets_everything_once(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    node = mlflow_node(uri, timeout_s=5.0)
    tracker = build(node, "tracker", {})
    run, other = start(tmp_path / "runs" / "going-on", node), finished(tmp_path / "runs" / "before", node)
    mlflow_store.connect(
        f"sqlite:///{tmp_path}/store.db", "tests", None, 10.0
    )  # mlflow is imported, no time is lost to it
    with server(tmp_path / "server", port):
        log_epoch(run, 1)
        tracker.deliver(run.path)
        tracker.deliver(other, final=True)
        assert is_delivered(run.path, tracker)
    log_epoch(run, 2)
    began = time.monotonic()
    with pytest.raises(DeliveryError, match=f"^MLflow at {uri}: "):
        tracker.deliver(run.path)
    assert time.monotonic() - began < 5.0
    tracker.deliver(run.path)  # in the pause: not tried
    finish(run)
    with pytest.raises(DeliveryError):
        tracker.deliver(run.path, final=True)
    assert sync(tmp_path / "runs") == 1
    with server(tmp_path / "server", port):
        for again in ([], ["--again"]):
            assert sync(tmp_path / "runs", *again) == 0
        client, experiment_id = mlflow_store.connect(uri, "tests", None, 10.0)
        found = {there.data.tags[run_schema.TAG_RUN_ID]: there for there in client.search_runs([experiment_id])}
        assert len(client.search_runs([experiment_id])) == 2
        assert set(found) == {run.run["run_id"], read_run(other)["run_id"]}
        for there in found.values():
            assert there.info.status == "FINISHED"
            assert [m.step for m in client.get_metric_history(there.info.run_id, "train/loss")] == list(range(1, 11))
            assert len(client.list_artifacts(there.info.run_id)) == 5
            assert there.data.metrics["test/f1"] == 18.5
