"""The report in MLflow: a run with the page, and views of the charts that the browser shows with the runs' figures."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium import webdriver

from reporting import compare
from reporting.mlflow_ui import open_ui
from reporting.mlflow_ui.log_report import TAG_REPORT, MlflowLocation, filter_of, location_of
from reporting.runs import find
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.seal import seal_of
from runner.compat.mlflow import VIEW_TAG
from runner.tracking import mlflow_store
from runner.tracking.mlflow_tracker import MlflowTracker
from tests.helpers.mlflow_views import read_state

pytestmark = pytest.mark.filterwarnings("ignore")  # by mlflow, about its dependencies
STRATEGIES = ("size1", "bucketed", "padmask", "packed")


def tracked(folder: Path, uri: str, cwd: Path) -> Path:
    """Make the run's folder look as if it had been logged to `uri`, which may be relative to `cwd`."""
    run = json.loads((folder / "run.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    tags = {key: str(result[key]) for key in ("task", "dataset", "embedding", "encoder", "batching", "seed")}
    about = {"tags": tags, "cwd": str(cwd), "name": folder.name, "host": "one"}
    config = yaml.safe_load((folder / "resolved.yaml").read_text())
    tracker = {"_target_": "runner.tracking.mlflow_tracker.MlflowTracker", "uri": uri, "experiment": "tests"}
    (folder / "resolved.yaml").write_text(yaml.safe_dump({**config, "tracker": tracker}))
    sealed = {**run, **about, "seal": seal_of(run | about, tracker)}
    (folder / "run.json").write_text(json.dumps(sealed))
    return folder


@pytest.fixture
def logged(tmp_path: Path, template: Path, write_run: Any) -> Path:
    """Two seeds of four strategies, below `runs/night`, logged to `mlflow.db` next to it."""
    shutil.copy(template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MlflowTracker(
        uri=uri, experiment="tests", artifact_location=None, log_model=None, register=None, timeout_s=10.0, retry_s=1.0
    )
    for strategy in STRATEGIES:
        for seed in (1, 2):
            folder = write_run(tmp_path / "runs" / "night" / f"{strategy}-{seed}", strategy, seed)
            tracker.deliver(tracked(folder, "sqlite:///mlflow.db", tmp_path), final=True)
    return tmp_path / "runs"


def content(store: Path) -> list[tuple[Any, ...]]:
    """Return runs, tags and the names of views."""
    with closing(sqlite3.connect(store)) as database:
        results = [*database.execute("SELECT run_uuid, name, status, lifecycle_stage FROM runs ORDER BY 1")]
        return [*results, *database.execute("SELECT key FROM experiment_tags ORDER BY 1")]


def test_a_report_is_a_run_beside_its_runs_and_replaced_by_the_next(
    logged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "mlflow.db", tmp_path / "out"
    before = content(store)
    assert compare.main(["night", "--runs", str(logged), "--out", str(out), "--no-mlflow"]) == 0
    assert content(store) == before
    assert compare.main(["night", "--runs", str(logged), "--out", str(out)]) == 0
    (report,) = (tmp_path / "mlartifacts").glob("*/artifacts/index.html")
    (report.parent / "old.png").write_bytes(b"of an earlier comparison")
    assert compare.main(["night", "--runs", str(logged), "--out", str(out)]) == 0
    assert sorted(path.name for path in report.parent.iterdir()) == sorted(path.name for path in out.iterdir())
    assert report.read_text() == (out / "index.html").read_text()

    shown = capsys.readouterr().out
    (link,) = set(re.findall(r"MLflow: (\S+)", shown))
    assert link == open_ui.newest(store)
    key = link.rpartition("=")[2]
    with closing(sqlite3.connect(store)) as database:
        (named,) = database.execute(
            "SELECT r.name, r.status FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = ? AND t.value = ?",
            (TAG_REPORT, key),
        )
        (note,) = database.execute("SELECT value FROM tags WHERE key = 'mlflow.note.content' AND value LIKE '# Batch%'")
        views = dict(database.execute("SELECT key, value FROM experiment_tags"))
    assert named == ("report: night", "FINISHED")
    assert "| packed | 2 | 41.50" in note[0]
    assert {name for name in views if name.startswith(VIEW_TAG)} == {VIEW_TAG + key, f"{VIEW_TAG}{key}-runs"}
    state = read_state(views[VIEW_TAG + key])
    assert state["searchFilter"] == "tags.`sweep.id` = 'night'"
    bars = [card["metricKey"] for card in state["compareRunCharts"] if card["type"] == "BAR"]
    assert bars == ["test/f1", "speed/real_tokens_per_s", "tokens/padding_share", "memory/peak_bytes"]
    (parallel,) = [
        card for card in read_state(views[f"{VIEW_TAG}{key}-runs"])["compareRunCharts"] if card["type"] == "PARALLEL"
    ]
    assert parallel["selectedParams"] == ["batching"]

    uri = f"sqlite:///{store}"
    assert compare.main(["mlflow:tests", "--tracking-uri", uri, "--out", str(tmp_path / "remote"), "--no-mlflow"]) == 0
    assert json.loads((tmp_path / "remote" / "report.json").read_text())["runs"] == 8


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///nowhere/mlflow.db", "there is no such file"),
        ("http://me:secret@127.0.0.1:9", "127.0.0.1"),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_report_stands(
    tmp_path: Path, write_run: Any, capsys: pytest.CaptureFixture[str], uri: str, message: str
) -> None:
    tracked(write_run(tmp_path / "runs" / "a", "packed", 1), uri, tmp_path)
    assert compare.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    error = capsys.readouterr().err
    place = uri.partition("//")[0] + "//"
    assert error.startswith(f"warning: the report is not in MLflow at {place}")
    assert message in error
    assert "secret" not in error
    assert error.count("\n") == 1
    assert (tmp_path / "out" / "index.html").exists()


def test_mlflow_logs_no_page_of_sql_beside_the_warning(tmp_path: Path, template: Path) -> None:
    """MLflow does so for a locked store."""
    shutil.copy(template, tmp_path / "mlflow.db")
    mlflow_store.open_store(f"sqlite:///{tmp_path}/mlflow.db", 5.0)
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR)


def test_runs_that_were_not_delivered_are_said_to_be_so(
    tmp_path: Path, template: Path, write_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(template, tmp_path / "mlflow.db")
    tracked(write_run(tmp_path / "runs" / "a", "packed", 1), "sqlite:///mlflow.db", tmp_path)
    assert compare.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "there is no experiment 'tests'; upload its runs with hydromel-sync" in capsys.readouterr().err


def test_where_runs_were_logged(tmp_path: Path, write_run: Any) -> None:
    """The place is that of the newest run; relative paths start at the directory it was started in."""
    write_run(tmp_path / "runs" / "a", "packed", 1)
    assert location_of([], find.scan(tmp_path / "runs"), None) is None
    tracked(write_run(tmp_path / "runs" / "b", "packed", 2), "sqlite:///mlflow.db", tmp_path)
    actual = find.scan(tmp_path / "runs")
    assert location_of([], actual, None) == MlflowLocation(f"sqlite:///{tmp_path}/mlflow.db", "tests")
    assert location_of([], actual, "http://host") == MlflowLocation("http://host", "tests")
    assert location_of(["mlflow:other"], actual, "http://host") == MlflowLocation("http://host", "other")
    tracked(write_run(tmp_path / "runs" / "c", "packed", 3), "sqlite:///mlflow.db", tmp_path / "gone")
    with pytest.raises(HydromelError, match="gone, which does not exist on this machine; give --tracking-uri"):
        location_of([], find.scan(tmp_path / "runs"), None)


def test_the_filter_says_what_the_runs_have_in_common(tmp_path: Path, write_run: Any) -> None:
    for name, change in (
        ("sweep", {}),
        ("experiment", {"sweep_id": "day"}),
        ("hash", {"experiment": "o'ther"}),
        ("all", {"provenance.comparison_hash": "z"}),
    ):
        write_run(tmp_path / "runs" / name, "packed", 1, change=change)
    actual = {item.folder.name: item for item in find.scan(tmp_path / "runs")}
    for among, expected in (
        (["sweep"], "tags.`sweep.id` = 'night'"),
        (["sweep", "experiment"], "tags.`experiment` = 'compare_batching'"),
        (["experiment", "hash"], "tags.`comparison_hash` = 'hash'"),
        (["experiment", "hash", "all"], f"tags.`{run_schema.TAG_RUN_ID}` IS NOT NULL"),
    ):
        assert filter_of([actual[name] for name in among]) == expected


@pytest.fixture
def server(logged: Path, tmp_path: Path) -> Iterator[str]:
    """Start MLflow's own server on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with suppress(OSError):
                    urllib.request.urlopen(f"{address}/health", timeout=2).close()
                    break
                time.sleep(0.3)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait()


@pytest.mark.browser
def test_the_view_shows_strategies_and_their_figures(
    browser: webdriver.Chrome, server: str, logged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page at the printed address has the groups and bars: means over seeds of the figures in result.json."""
    assert compare.main(["night", "--runs", str(logged), "--out", str(tmp_path / "out")]) == 0
    (link,) = re.findall(r"MLflow: (\S+)", capsys.readouterr().out)
    expected = set()
    for strategy in STRATEGIES:
        results = [
            json.loads((logged / "night" / f"{strategy}-{seed}" / run_schema.RESULT).read_text()) for seed in (1, 2)
        ]
        for section, figure in (("test", "f1"), ("speed", "real_tokens_per_s")):
            values = [
                result["metrics"]["test"][figure] if section == "test" else result[section][figure]
                for result in results
            ]
            expected.add(f"{sum(values) / 2:.2f}")
    assert len(expected) == 5  # one f1, which depends on the seed only, and four speeds
    browser.set_window_size(1600, 2400)
    browser.get(link.replace(mlflow_store.LOCAL_SERVER, server))
    shown: set[str] = set()
    until = time.monotonic() + 300
    while time.monotonic() < until and not expected <= shown:
        time.sleep(0.5)
        words = browser.execute_script(
            "return [...document.querySelectorAll('svg text, span, div')]"
            ".map(e => e.childElementCount ? '' : e.textContent)"
        )
        shown = set(words)
    assert expected <= shown
    body = browser.find_element("tag name", "body").text
    assert all(f"Group: {strategy}" in body for strategy in STRATEGIES)
    assert "night: strategies" in body
    assert "Error loading shared view" not in body
    ours = [line["message"] for line in browser.get_log("browser") if "/static-files/" not in line["message"]]
    assert [line for line in ours if "/users/current" not in line] == []  # MLflow asks for a user without one

    # the address that each run prints: another than that of the view, or the page would not load again
    browser.get("about:blank")
    browser.get(mlflow_store.page(server, "2"))
    wanted = [f"{strategy}-1" for strategy in STRATEGIES] + ["Add chart"]  # runs, beside charts
    while time.monotonic() < until and not all(text in body for text in wanted):
        time.sleep(0.5)
        body = browser.find_element("tag name", "body").text
    assert [text for text in wanted if text not in body] == []


def test_a_report_is_not_sent_where_a_run_from_elsewhere_says(
    tmp_path: Path, write_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
        tracked(write_run(tmp_path / "runs" / "theirs", "padmask", 1), "http://elsewhere:5000", tmp_path)
    actual = find.scan(tmp_path / "runs")
    with pytest.raises(HydromelError, match=r"another installation made .*theirs, so its tracker is not used; give --"):
        location_of([], actual, None)
    assert location_of([], actual, "http://mine:5000") == MlflowLocation("http://mine:5000", "tests")
