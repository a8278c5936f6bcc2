import getpass
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from runner.common import run_schema
from runner.common.errors import HydromelError, without_credentials
from runner.tracking import fields, mlflow_store, mlflow_tracker
from runner.tracking.mlflow_tracker import MlflowTracker
from runner.tracking.run_folder import read_metrics, read_run
from runner.tracking.tracker import DeliveryError, is_delivered
from tests.helpers.run_folders import CONFIG, TAGS, finish, finished, log_epoch, mlflow_node, start

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies, as the tests look into it


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def uri(tmp_path: Path, template: Path) -> str:
    shutil.copy(template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def tracker_for(uri: str, **other: Any) -> MlflowTracker:
    return MlflowTracker(**{key: value for key, value in mlflow_node(uri, **other).items() if key != "_target_"})


def client_of(uri: str) -> Any:
    return mlflow_store.connect(uri, "tests", None, 10.0)[0]


def content_of(uri: str) -> dict[str, Any]:
    """Everything in the store, by hydromel's run id (so a run that is there twice shows), without MLflow's own ids."""
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert len({run.data.tags[run_schema.TAG_RUN_ID] for run in runs}) == len(runs), "a run is there twice"
    return {run.data.tags[run_schema.TAG_RUN_ID]: content_of_run(client, run) for run in runs}


def content_of_run(client: Any, run: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    history = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
    plots = client.list_artifacts(run_id, run_schema.PLOTS)
    return {
        "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": run.data.tags,
        "curves": {name: sorted((m.step, m.timestamp, m.value) for m in curve) for name, curve in history.items()},
        "inputs": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
        "artifacts": sorted((file.path, file.file_size) for file in [*client.list_artifacts(run_id), *plots]),
    }


def test_a_run_is_all_there(tmp_path: Path, uri: str) -> None:
    folder, tracker = finished(tmp_path / "run"), tracker_for(uri)
    tracker.check()
    assert not is_delivered(folder, tracker)
    tracker.deliver(folder, final=True)
    assert is_delivered(folder, tracker)
    (there,), run = content_of(uri).values(), read_run(folder)
    assert there["info"] == ("run", "FINISHED", int(run["created"] * 1000), int(run["ended"] * 1000))
    assert there["tags"].items() >= (TAGS | {"sweep.id": "sweep-1", "experiment": "compare"}).items()
    assert there["tags"]["status"] == "finished"
    about = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "hydromel", "mlflow.source.type": "LOCAL"}
    about |= {"mlflow.source.git.commit": "f" * 40, "mlflow.source.git.dirty": "false"}
    assert there["tags"].items() >= about.items()
    assert there["params"]["embedding.sizes"] == "[1, 2, 3]"
    assert there["params"]["train.note"] == "x" * 499 + "…"
    assert not [name for name in there["params"] if name.startswith("tracker")]
    assert (there["params"]["encoder"], there["params"]["seed"]) == ("rnn", "1")
    assert there["params"]["train.epochs"] == "10", "the default, but given"
    assert "train.patience" not in there["params"]
    records = [record for record, _ in read_metrics(folder) if "train/loss" in record["metrics"]]
    points = [(record["step"], int(record["time"] * 1000), record["metrics"]["train/loss"]) for record in records]
    assert there["curves"]["train/loss"] == points
    assert len(points) == 10
    assert [point[2] for point in there["curves"]["valid/f1"]] == [10.0, 20.0]
    assert "valid/broken" not in there["curves"]
    latest = {name: curve[-1][2] for name, curve in there["curves"].items()}
    wanted = {"test/f1": 18.5, "best/f1": 20.0, "speed/real_tokens_per_s": 1234.5, "memory/peak_bytes": 2.0**30}
    wanted |= {"characters/padded": 100.0, "arithmetic/share": 0.1, "energy/joules": 90.0, "tokens/padding_share": 0.1}
    wanted |= {"seconds/forward": 1.5, "majority/f1": 0.0, "baselines/most_frequent_tag/f1": 7.25}
    assert latest.items() >= wanted.items()
    assert "best/perplexity" not in latest
    assert there["inputs"] == [("wnut17", "d" * 36)]
    assert {path for path, _ in there["artifacts"]} == {
        run_schema.RUN,
        run_schema.RESOLVED,
        run_schema.RESULT,
        run_schema.METRICS,
        run_schema.PLOTS,
        f"{run_schema.PLOTS}/loss.svg",
    }
    assert "f1: test 18.50" in there["tags"]["mlflow.note.content"]


def test_a_run_grows_ends_and_is_resumed(tmp_path: Path, uri: str) -> None:
    tracker, run = tracker_for(uri), start(tmp_path / "run")
    statuses = []

    def deliver() -> dict[str, Any]:
        tracker.deliver(run.path)
        (there,) = content_of(uri).values()
        statuses.append(there["info"][1])
        return there

    log_epoch(run, 1)
    assert len(deliver()["curves"]["train/loss"]) == 5
    run.set_status(run_schema.INTERRUPTED)
    run.close()
    assert deliver()["tags"]["status"] == "interrupted"
    run = start(tmp_path / "run")
    log_epoch(run, 2)
    assert len(deliver()["curves"]["train/loss"]) == 10
    run.set_status(run_schema.FAILED, "encoder: it broke")
    assert "it broke" in deliver()["tags"]["mlflow.note.content"]
    finish(run)
    deliver()
    assert statuses == ["RUNNING", "KILLED", "RUNNING", "FAILED", "FINISHED"]


STEPS = ("search_runs", "create_run", "log_batch", "log_inputs", "log_artifact", "log_text", "set_terminated")


def interrupt(patch: pytest.MonkeyPatch, call: int | None, when: str) -> list[str]:
    """Be killed at the `call`-th step of a delivery, before or after its effect; the steps made so far are returned."""
    from mlflow.tracking import MlflowClient

    result: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            number = len(result)
            result.append(name)
            if number == call and when == "before":
                raise Killed
            answer = real(*arguments, **named)
            if number == call:
                raise Killed
            return answer

        return step

    for name in STEPS:
        patch.setattr(MlflowClient, name, wrapped(name, getattr(MlflowClient, name)))
    patch.setattr(mlflow_tracker, "save_progress", wrapped("save_progress", mlflow_tracker.save_progress))
    return result


@pytest.mark.parametrize("when", ["before", "after"])
def test_being_killed_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, uri: str, template: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder = finished(tmp_path / "run")
    monkeypatch.setattr(mlflow_tracker, "_METRICS_A_CALL", 12)  # several calls for this small run
    shutil.copytree(folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        steps = interrupt(patch, None, when)
        tracker_for(uri).deliver(tmp_path / "whole", final=True)
        total = len(steps)
    whole = content_of(uri)
    assert set(steps) == {*STEPS, "save_progress"}
    for call in range(total):
        store = tmp_path / f"{call}.db"
        shutil.copy(template, store)
        shutil.copytree(folder, tmp_path / f"run{call}")
        with monkeypatch.context() as patch:
            interrupt(patch, call, when)
            with pytest.raises(Killed):
                tracker_for(f"sqlite:///{store}").deliver(tmp_path / f"run{call}", final=True)
        tracker_for(f"sqlite:///{store}").deliver(tmp_path / f"run{call}", final=True)
        assert content_of(f"sqlite:///{store}") == whole, f"killed {when} step {call}: {steps[call]}"


def test_notes_about_another_store_are_not_believed(tmp_path: Path, uri: str, template: Path) -> None:
    folder = finished(tmp_path / "run")
    tracker_for(uri).deliver(folder)
    before = content_of(uri)
    client = client_of(uri)
    client.delete_experiment(client.get_experiment_by_name("tests").experiment_id)
    with pytest.raises(DeliveryError, match="experiment 'tests' was deleted in MLflow"):
        tracker_for(uri).deliver(folder)
    moved = tmp_path / "moved.db"
    shutil.copy(template, moved)
    progress = json.loads((folder / run_schema.DELIVERED).read_text())
    (old,) = progress.values()
    (folder / run_schema.DELIVERED).write_text(json.dumps({f"sqlite:///{moved} tests": old}))
    tracker_for(f"sqlite:///{moved}").deliver(folder)
    assert content_of(f"sqlite:///{moved}") == before


def test_a_run_deleted_in_mlflow_stays_deleted(tmp_path: Path, uri: str) -> None:
    folder, tracker = finished(tmp_path / "run"), tracker_for(uri)
    tracker.deliver(folder)
    client = client_of(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    client.delete_run(run.info.run_id)
    (folder / run_schema.DELIVERED).unlink()
    tracker.deliver(folder)
    assert content_of(uri) == {}
    assert is_delivered(folder, tracker)


def test_params_are_written_once(tmp_path: Path, uri: str) -> None:
    run = start(tmp_path / "run")
    tracker_for(uri).deliver(run.path)
    (run.path / run_schema.RESOLVED).write_text(json.dumps(CONFIG | {"seed": 2, "fresh": 5}))
    tracker_for(uri).deliver(run.path)
    (there,) = content_of(uri).values()
    assert (there["params"]["seed"], there["params"]["fresh"]) == ("1", "5")


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.campaign)])
def test_several_processes_start_on_a_fresh_store_at_once(tmp_path: Path, count: int) -> None:
    folders = [finished(tmp_path / "runs" / str(number), epochs=1) for number in range(count)]
    script = (
        "import sys; from pathlib import Path; from runner.tracking.mlflow_tracker import MlflowTracker\n"
        "tracker = MlflowTracker(uri=sys.argv[2], experiment='tests', "
        "artifact_location=None, log_model=None, register=None, timeout_s=30.0, retry_s=1.0)\n"
        "tracker.deliver(Path(sys.argv[1]), final=True)"
    )
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(folder), uri], **pipes) for folder in folders]
    assert [(process.communicate()[0], process.returncode) for process in processes] == [("", 0)] * count  # and silent
    there = content_of(uri)
    assert set(there) == {read_run(folder)["run_id"] for folder in folders}
    assert all(run["info"][1] == "FINISHED" and len(run["curves"]["train/loss"]) == 5 for run in there.values())
    with closing(sqlite3.connect(tmp_path / "store" / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_unreachable_store_is_tried_after_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, now, tries = finished(tmp_path / "run"), [0.0], []

    def refuse(*_: object) -> None:
        tries.append(now[0])
        raise ConnectionRefusedError(111, "refused\nby\tthe server")

    monkeypatch.setattr(mlflow_tracker, "connect", refuse)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tracker = tracker_for("http://user:secret@localhost:1", retry_s=10.0)
    output = set()
    for second in range(0, 4000, 10):
        now[0] = float(second)
        try:
            tracker.deliver(folder)
        except DeliveryError as error:
            output.add(str(error))
    assert output == {"MLflow at http://localhost:1: ConnectionRefusedError: [Errno 111] refused by the server"}
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600][: len(pauses)]
    assert len(pauses) > 8
    for _ in range(2):
        with pytest.raises(DeliveryError):
            tracker.deliver(folder, final=True)
    assert tries[-2:] == [3990.0, 3990.0]
    assert not is_delivered(folder, tracker)


@pytest.mark.parametrize("kind", ["http", "postgresql"])
def test_a_server_that_is_not_there_costs_no_more_than_the_timeout(tmp_path: Path, kind: str) -> None:
    folder = finished(tmp_path / "run")
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "http":
            silent.listen()  # connects, and never answers
        began = time.monotonic()
        with pytest.raises(DeliveryError):
            tracker_for(f"{kind}://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1.0).deliver(folder)
        assert time.monotonic() - began < 5.0


def test_a_file_that_is_no_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("This is a letter, and no database at all. " * 100)
    tracker = tracker_for(f"sqlite:///{tmp_path}/mlflow.db")
    assert "`mlflow server" in tracker.describe()
    with pytest.raises(DeliveryError, match="DatabaseError: file is not a database") as caught:
        tracker.deliver(finished(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert tracker.describe() == f"MLflow at {tracker.uri} was not reached; `hydromel-sync` delivers the records"


@pytest.mark.parametrize("good", ["sqlite:///a.db", "sqlite:////x/a.db", "http://h:5000", "https://h/p", "databricks"])
def test_good_uris(good: str) -> None:
    tracker_for(good).check()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("mlruns", "plain folders; use sqlite:///mlruns/mlflow.db"),
        ("file:///data/mlruns", "plain folders; use sqlite:////"),
        ("", "use sqlite:///./mlflow.db"),
        ("sqlite://", "unknown scheme"),
        ("sqlite:///", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("http://", "no host"),
        ("ftp://h", "unknown scheme"),
        ("postgresql://u:secret@h/d", "needs the Python package psycopg"),
    ],
)
def test_bad_uris_say_what_to_write(bad: str, says: str) -> None:
    with pytest.raises(HydromelError, match=r"^tracker\.uri=") as caught:
        tracker_for(bad).check()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_description_leads_to_the_experiments_charts(tmp_path: Path, uri: str) -> None:
    tracker = tracker_for(uri)
    assert f"--backend-store-uri '{uri}'" in tracker.describe()
    tracker.deliver(finished(tmp_path / "run"))
    assert tracker.describe().endswith("/#/experiments/2/runs?workflowType=machine_learning&compareRunsMode=CHART")
    on_training = "http://host:5000/#/experiments?workflowType=machine_learning"
    assert tracker_for("http://me:secret@host:5000/").describe() == f"MLflow: {on_training}"


def test_an_experiment_is_marked_as_one_of_training_runs(tmp_path: Path, uri: str) -> None:
    client = client_of(uri)
    kind = "mlflow.experimentKind"
    assert client.get_experiment_by_name("tests").tags[kind] == "custom_model_development"
    client.create_experiment("older")
    client.create_experiment("theirs", tags={kind: "genai_development"})
    for name, expected in (("older", "custom_model_development"), ("theirs", "genai_development")):
        mlflow_store.connect(uri, name, None, 10.0)
        assert client.get_experiment_by_name(name).tags[kind] == expected


def test_runs_of_a_sweep_have_a_parent_that_later_deliveries_keep(tmp_path: Path, uri: str) -> None:
    folders = [finished(tmp_path / name, epochs=1) for name in ("a", "b")]
    tracker_for(uri).deliver(folders[0], final=True)  # without the option
    for folder in (*folders, folders[0]):
        tracker_for(uri, parent_runs=True).deliver(folder, final=True)
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    (parent,) = [run for run in runs if run_schema.TAG_PARENT in run.data.tags]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in below} == {"a", "b"}
    assert (parent.info.run_name, parent.info.status, len(runs)) == ("sweep-1", "FINISHED", 3)
    tracker = tracker_for(uri, parent_runs=True)
    tracker.deliver(folders[0], final=True)
    assert tracker.describe().endswith("/runs?workflowType=machine_learning"), "the table, which shows the tree"
    assert parent.info.end_time == max(run.info.end_time for run in below)
    assert parent.data.tags["mlflow.user"] == getpass.getuser()
    assert not parent.data.tags.keys() & {run_schema.TAG_SWEEP, run_schema.TAG_RUN_ID}  # by which runs are compared


def test_samples_of_the_machine_are_system_metrics(tmp_path: Path, uri: str) -> None:
    run = start(tmp_path / "run")
    samples = run.path / run_schema.SYSTEM
    line = '{"time": %d, "step": %d, "epoch": 0, "metrics": {"system/cpu_utilization_percentage": 50.0}}\n'
    samples.write_text(line % (1, 0))
    tracker_for(uri).deliver(run.path)
    samples.write_text(line % (1, 0) + line % (2, 1))
    finish(run)
    assert not is_delivered(run.path, tracker_for(uri))
    tracker_for(uri).deliver(run.path, final=True)
    (there,) = content_of(uri).values()
    assert there["curves"]["system/cpu_utilization_percentage"] == [(0, 1000, 50.0), (1, 2000, 50.0)]
    assert run_schema.SYSTEM in {path for path, _ in there["artifacts"]}


def test_names_are_made_of_allowed_characters() -> None:
    assert fields.allowed_name("a/b c.d-e_f:g") == "a/b c.d-e_f:g"
    assert fields.allowed_name("B-(x)=ü*") == "B-_x__ü_"
    assert len(fields.allowed_name("x" * 999)) == 250


def test_passwords_are_cut_out() -> None:
    assert without_credentials("see http://me:a.b-c@h:1/p and x://u:p@q") == "see http://h:1/p and x://q"
    assert without_credentials("http://h:5000/a@b") == "http://h:5000/a@b"


def test_a_result_with_holes_has_a_summary() -> None:
    least: Any = {"quality": {"metric": "f1", "higher_is_better": True}, "updates": {"count": 3, "digest": "abc"}}
    assert fields.summary(least) == {"updates/count": 3.0}
    assert fields.summary(least | {"metrics": {"test": {"f1": None, "top": True}}}) == {"updates/count": 3.0}
