"""Tracking servers that are down, hang, answer nonsense or die: the run goes on, and its records arrive later."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runner.common import run_schema
from tests.faults import mutate
from tests.faults.forked import Faults, call
from tests.faults.kills import differences, finish, points_of, reference
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, new_run

MANNERS = ("down", "hangs", "500", "dies", "nonsense")
_API = "/api/2.0/mlflow/"


class _Store:
    """Runs as MLflow keeps them, in a file that outlives the server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def answer(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request of MLflow's protocol."""
        run = self.runs.get(asked.get("run_id", ""))
        experiment = {
            "experiment_id": "1",
            "name": "x",
            "lifecycle_stage": "active",
            "artifact_location": "mlflow-artifacts:/1",
        }
        if name == "experiments/get-by-name":
            return {"experiment": experiment}
        if name == "runs/search":
            return {"runs": [run for run in self.runs.values() if run["hydromel"] in asked["filter"]]}
        if name == "runs/create":
            tags = {tag["key"]: tag["value"] for tag in asked["tags"]}
            run_id = f"{len(self.runs):032x}"
            info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING", "start_time": 1}
            info |= {"lifecycle_stage": "active", "artifact_uri": f"mlflow-artifacts:/1/{run_id}", "user_id": "x"}
            run = {
                "info": info,
                "data": {"metrics": [], "params": [], "tags": []},
                "points": [],
                "hydromel": tags[run_schema.TAG_RUN_ID],
            }
            self.runs[run_id] = run
        elif name == "runs/log-batch":
            run["points"] += [point for point in asked.get("metrics", []) if point not in run["points"]]
        elif name == "runs/update":
            run["info"]["status"] = asked["status"]
        self._path.write_text(json.dumps(self.runs))
        return {"run": run, "run_info": run["info"]} if run else {}


def _serve(port: int, store: Path, manner: str, requests: int) -> None:
    """Answer as `manner` says, after a number of good answers; never returns."""
    kept = _Store(store)
    left = requests

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            nonlocal left
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            place = urlsplit(self.path)
            left -= 1
            if left < 0:
                self._misbehave()
                return
            asked = {key: value[0] for key, value in parse_qs(place.query).items()} if self.command == "GET" else {}
            if body and place.path.startswith(_API):
                asked = json.loads(body)
            known = place.path.startswith(_API)
            self._send(200, json.dumps(kept.answer(place.path.removeprefix(_API), asked) if known else {}).encode())

        do_GET = do_POST = do_PUT = _any

        def _misbehave(self) -> None:
            if manner == "dies":
                os._exit(0)
            if manner == "hangs":
                time.sleep(1000)
            if manner == "500":
                self._send(500, f"<html>{mutate.ESCAPE}Internal error{'x' * 100_000}</html>".encode("latin-1"))
            if manner == "nonsense":
                self._send(
                    200,
                    Random(left).choice(
                        [b"<html>", b"[1]", b'{"runs": 7}', b"null", mutate.DEEP.encode(), mutate.BINARY]
                    ),
                )

        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


@contextmanager
def _server(port: int, store: Path, manner: str, requests: int) -> Iterator[None]:
    if manner == "down":
        yield
        return
    pid = os.fork()
    if pid == 0:
        try:
            _serve(port, store, manner, requests)
        finally:
            os._exit(1)
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def servers(count: int, seed: int, folder: Path) -> Part:
    """Make `count` runs whose server misbehaves, and deliver them when it is well again."""
    part = Part("bad servers")
    scenario = SCENARIOS[0]
    whole = reference(scenario)
    for number in range(count):
        rng = Random(f"{seed} server {number}")
        manner, requests = MANNERS[number % len(MANNERS)], rng.randrange(12)
        own, port = folder / f"server-{number}", _free_port()
        own.mkdir(parents=True)
        run, store = own / "run", own / "store.json"
        tracker = {"_target_": "runner.tracking.mlflow_tracker.MlflowTracker", "uri": f"http://127.0.0.1:{port}"}
        tracker |= {"experiment": "x", "artifact_location": None, "timeout_s": 1.0, "retry_s": 0.1}
        with _server(port, store, manner, requests):
            ending = call(new_run(scenario, run, tracker=tracker))
        faults: Faults = [(ending.fault, ending.last_line)] if ending.fault else []
        faults += [("lost points", f"the run ended by it: {ending.last_line}")] if ending.code else []
        with _server(port, store, "500", 10**9):
            faults += finish(run, new_run(scenario, run, tracker=tracker)) if not ending.code else []
        faults += differences(whole.folder, run, sent=False)
        part.add(f"{number} {manner} after {requests} requests", faults + _arrived(run, store))
    return part


def _arrived(run: Path, store: Path) -> Faults:
    """Compare the records of a run with those in the store, where MLflow keeps equal ones once."""
    runs = list(_Store(store).runs.values())
    if len(runs) != 1:
        return [("doubled points" if runs else "lost points", f"{len(runs)} runs in the store")]
    sent = Counter[str]()
    for point in runs[0]["points"]:
        sent[f"{point['key']} {point['step']}"] += 1
    own = {
        " ".join(key.split()[:2])
        for key in points_of(json.loads(line) for line in (run / run_schema.METRICS).read_text().splitlines())
    }
    lost, doubled = sorted(own - sent.keys()), sorted(key for key in own if sent[key] > 1)
    faults = [("lost points", f"{len(lost)}, {lost[0]}")] if lost else []
    faults += [("doubled points", f"{len(doubled)}, {doubled[0]}")] if doubled else []
    status = runs[0]["info"]["status"]
    return faults + ([] if status == "FINISHED" else [("lost points", f"status {status}")])
