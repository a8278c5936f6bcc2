import contextlib
import errno
import json
import os
import shutil
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

import runner.tracking.sync
import runner.tracking.tracker
from runner.cli.sync import main
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.records import RunRecord
from runner.config.instantiate import build
from runner.experiment import run as experiment
from runner.experiment.run import run_experiment
from runner.tracking import mlflow_store
from runner.tracking.run_folder import read_run
from runner.tracking.sync import UNDELIVERED, deliver_pending, mark_undelivered, unmark
from runner.tracking.tracker import DeliveryError, JsonlTracker, is_delivered
from runner.training.state import Training
from tests.helpers.composed import run_config, tag_files
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
    runs, here, elsewhere = tmp_path / "runs", tmp_path / "here", tmp_path / "elsewhere"
    mine = [finished(runs / name, jsonl(here)) for name in ("1", "2", "not noted")]
    others = [finished(runs / "3", jsonl(elsewhere)), finished(runs / "4"), finished(runs / "5"), runs / "gone"]
    (runs / "5" / run_schema.RUN).write_text("{")
    for folder in (*mine[:2], *others):
        mark_undelivered(runs, folder)
    mark_undelivered(runs, finished(tmp_path / "outside", jsonl(here)))
    assert len(list((runs / UNDELIVERED).iterdir())) == 6
    tracker = JsonlTracker(path=str(here))
    tracker.deliver(mine[0])
    asked: list[Path] = []

    def reading(folder: Path) -> RunRecord:
        asked.append(folder)
        return read_run(folder)

    monkeypatch.setattr(runner.tracking.sync, "read_run", reading)
    assert deliver_pending(runs, tracker) == 1
    assert mine[2] not in asked, "only what is noted is read"
    assert len(list((runs / UNDELIVERED).iterdir())) == 3  # of another target, without a tracker, damaged
    assert deliver_pending(runs, tracker) == 0
    assert set(arrived(here)) == {read_run(folder)["run_id"] for folder in mine[:2]}
    assert not elsewhere.exists()
    unmark(runs, others[0])
    assert len(list((runs / UNDELIVERED).iterdir())) == 2
    (mine[1] / run_schema.DELIVERED).unlink()
    mark_undelivered(runs, mine[1])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner.tracking.tracker, "append", full)
    with pytest.raises(DeliveryError):
        deliver_pending(runs, tracker)
    assert deliver_pending(tmp_path / "nowhere", tracker) == 0


def test_a_run_is_noted_as_undelivered_until_its_records_have_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that failed without them is delivered by the next."""
    monkeypatch.chdir(tmp_path)
    data = [
        *tag_files(tmp_path),
        "encoder=conv",
        "train.max_updates=2",
        "cache_dir=null",
        "run_plots=null",
        "tracker=jsonl",
    ]
    noted: list[int] = []
    fit = experiment.fit

    def counting(training: Training) -> None:
        noted.append(len(list((tmp_path / "runs" / UNDELIVERED).iterdir())))
        if len(noted) == 1:
            raise HydromelError("a failure of the run")
        fit(training)

    monkeypatch.setattr(experiment, "fit", counting)
    (tmp_path / "runs.jsonl").mkdir()  # the tracker cannot write
    monkeypatch.setattr(JsonlTracker, "check", lambda self: None)
    with pytest.raises(HydromelError, match="a failure of the run"):
        run_experiment(run_config(*data), tmp_path / "runs" / "1", 0.0)
    (tmp_path / "runs.jsonl").rmdir()
    run_experiment(run_config(*data), tmp_path / "runs" / "2", 0.0)
    assert noted == [1, 2]
    assert not list((tmp_path / "runs" / UNDELIVERED).iterdir())
    assert len(arrived(tmp_path / "runs.jsonl")) == 2


ELSEWHERE = "another installation made this run, so its tracker is not used"


def test_the_tracker_of_a_run_from_elsewhere_is_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bashrc"
    target.write_text("precious\n")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
        folder = finished(tmp_path / "runs" / "theirs", jsonl(target))
    assert sync(folder) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{folder}: not delivered: {ELSEWHERE}" in error
    assert "bashrc" in error
    assert "give --uri URI, or --trust if you know where the run comes from" in error
    mark_undelivered(tmp_path / "runs", folder)
    assert deliver_pending(tmp_path / "runs", JsonlTracker(path=str(target))) == 0
    assert target.read_text() == "precious\n"
    target.write_text("")
    assert sync(folder, "--trust") == 0
    assert list(arrived(target)) == [read_run(folder)["run_id"]]


@pytest.mark.parametrize("change", ["tracker", "cwd", "run_id", "seal", "no seal"])
def test_a_run_whose_tracker_was_changed_is_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    folder = finished(tmp_path / "run", jsonl(tmp_path / "mine"))
    record = json.loads((folder / run_schema.RUN).read_text())
    if change == "tracker":
        (folder / run_schema.RESOLVED).write_text(json.dumps({"tracker": jsonl(tmp_path / "others")}))
    elif change == "no seal":
        del record["seal"]
    else:
        record[change] = "0" * 32
    (folder / run_schema.RUN).write_text(json.dumps(record))
    assert sync(folder) == 1
    assert ELSEWHERE in capsys.readouterr().err
    assert sync(finished(tmp_path / "without"), "--trust") == 0  # no tracker needs no trust


@pytest.mark.parametrize(
    "link",
    [
        run_schema.RUN,
        run_schema.RESOLVED,
        run_schema.METRICS,
        run_schema.LOCK,
        "delivered.json.lock",
        f"{run_schema.PLOTS}/secret.svg",
        run_schema.CHECKPOINTS,
    ],
)
@pytest.mark.parametrize("options", [[], ["--uri"], ["--trust"]])
def test_links_in_a_run_s_folder_are_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], link: str, options: list[str]
) -> None:
    folder = finished(tmp_path / "runs" / "run", jsonl(tmp_path / "shared"))
    secret = tmp_path / "secret"
    if link == run_schema.CHECKPOINTS:
        secret.mkdir()
    elif (folder / link).exists():
        (folder / link).replace(secret)
    else:
        secret.write_text("precious")
    before = None if secret.is_dir() else secret.read_bytes()
    (folder / link).symlink_to(secret)
    uri = [f"sqlite:///{tmp_path}/mlflow.db"] if options == ["--uri"] else []
    assert sync(tmp_path / "runs", *options, *uri) == 1
    error = capsys.readouterr().err
    assert f"{folder / link}: a link; a run writes only to files and folders of its own; remove it" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "shared").exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert secret.is_dir() or secret.read_bytes() == before


def test_a_pipe_in_a_run_s_folder_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(tmp_path / "run", jsonl(tmp_path / "shared"))
    os.mkfifo(folder / run_schema.PLOTS / "pipe.svg")
    assert sync(folder) == 1
    assert (
        "pipe.svg: neither a file nor a folder; a run writes only to files and folders of its own; remove it"
        in capsys.readouterr().err
    )


def test_a_folder_that_cannot_be_written_ends_no_run_and_no_sync(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, runs = tmp_path / "shared", tmp_path / "runs"
    folders = [finished(runs / name, jsonl(shared)) for name in ("locked", "good")]
    for folder in folders:
        mark_undelivered(runs, folder)
    alive = runner.tracking.sync.is_alive

    def refused(folder: Path) -> bool:  # as root, which tests may run as, every folder can be written
        if folder.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder / run_schema.LOCK))
        return alive(folder)

    monkeypatch.setattr(runner.tracking.sync, "is_alive", refused)
    assert deliver_pending(runs, JsonlTracker(path=str(shared))) == 1
    assert sync(runs) == 1
    captured = capsys.readouterr()
    assert captured.err == f"{folders[0]}: not delivered: cannot write {folders[0]}: Permission denied\n"
    assert f"{folders[1]}: up to date" in captured.out


def test_a_run_deleted_in_mlflow_is_told_and_restored(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder, other = (finished(tmp_path / "runs" / name, mlflow_node(uri)) for name in ("deleted", "other"))
    assert sync(tmp_path / "runs") == 0
    client, experiment_id = mlflow_store.connect(uri, "tests", None, 10.0)

    def stored() -> dict[str, str]:
        actual = client.search_runs([experiment_id])
        return {there.data.tags[run_schema.TAG_RUN_ID]: there.info.run_id for there in actual}

    whole = stored()
    client.delete_run(whole[read_run(folder)["run_id"]])
    capsys.readouterr()
    for again in ([], ["--again"]):
        assert sync(tmp_path / "runs", *again) == 0
        assert f"{folder}: deleted in the store (see --restore)" in capsys.readouterr().out
        assert list(stored()) == [read_run(other)["run_id"]]
    assert sync(tmp_path / "runs", "--restore") == 0
    assert f"{folder}: restored" in capsys.readouterr().out
    assert stored() == whole
    (tmp_path / "mlflow.db").unlink()
    shutil.copy(template, tmp_path / "mlflow.db")
    assert sync(tmp_path / "runs") == 0  # the store is another one: what it lacks is delivered
    assert capsys.readouterr().out.count(": delivered\n") == 2


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
        actual = {there.data.tags[run_schema.TAG_RUN_ID]: there for there in client.search_runs([experiment_id])}
        assert len(client.search_runs([experiment_id])) == 2
        assert set(actual) == {run.run["run_id"], read_run(other)["run_id"]}
        for there in actual.values():
            assert there.info.status == "FINISHED"
            assert [m.step for m in client.get_metric_history(there.info.run_id, "train/loss")] == list(range(1, 11))
            assert len(client.list_artifacts(there.info.run_id)) == 5
            assert there.data.metrics["test/f1"] == 18.5
