"""Delivery of runs' folders to MLflow. Every step can be repeated, so an interrupted delivery is simply made again.

A run is looked up by its tag `hydromel.run_id` before it is created. Params and inputs are sent if they are missing, a
metric with the time and step of its record (MLflow stores equal ones once), and files replace each other. The progress
noted in the folder only saves work, and is discarded if the store has another run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runner.common import run_schema
from runner.common.errors import HydromelError, without_credentials
from runner.common.records import ResultRecord
from runner.common.types import FilePath, Seconds, Text
from runner.tracking import fields
from runner.tracking.mlflow_parents import PARENT, end_parent, ended_at, parent_of
from runner.tracking.mlflow_store import LOCAL_SERVER, SQLITE, check_uri, connect, one_line, page, sqlite_path
from runner.tracking.network_files import warn_of_network
from runner.tracking.run_folder import read_metrics, read_result, read_run
from runner.tracking.tracker import (
    DeliveryError,
    Pause,
    Progress,
    fingerprint_of,
    from_working_directory,
    load_progress,
    lock,
    save_progress,
)

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
_METRICS_A_CALL = 1000  # MLflow's limit


@dataclass(kw_only=True, eq=False)
class MlflowTracker:
    """A tracker that makes one run in MLflow for each run's folder.

    Args:
        uri: tracking URI; `sqlite:///FILE` with a relative FILE is relative to the run's working directory.
        experiment: MLflow's experiment, created if it does not exist.
        artifact_location: artifact folder of a new experiment; None: `mlartifacts` next to a SQLite file, otherwise
            the server's default.
        log_model: `best` logs the best checkpoint of a finished run as a model, `auto` that of a run that belongs to no
            sweep and no search, null none.
        register: name in the model registry under which logged models become versions, the last one with the alias
            `newest`; null: they are not registered.
        timeout_s: maximum seconds to wait for an unreachable store.
        retry_s: seconds to wait after a failure; doubled after each further one, up to 600.
        parent_runs: put the runs of a sweep, of repeats or of a search below a run that stands for it.
    """

    uri: FilePath
    experiment: Text
    artifact_location: FilePath | None
    timeout_s: Seconds
    retry_s: Seconds
    # the defaults are for runs made before these options existed
    log_model: Literal["auto", "best"] | None = None
    register: Text | None = None
    parent_runs: bool = False
    _connections: dict[str, tuple[MlflowClient, str]] = field(default_factory=dict, init=False)  # by absolute URI
    _pause: Pause = field(init=False)

    def __post_init__(self) -> None:
        self._pause = Pause(self.retry_s)

    def check(self) -> None:
        check_uri(self.uri)
        if not self.experiment.strip():
            raise HydromelError("tracker.experiment is empty; give it a name")
        if "SLURM_JOB_ID" in os.environ:  # other jobs may run on other machines
            warn_of_network(self.uri)

    def target(self, folder: Path) -> str:
        return f"{without_credentials(self._absolute_uri(folder))} {self.experiment}"

    def deliver(self, folder: Path, final: bool = False) -> None:
        if not final and self._pause.is_on:
            return
        with self._reaching(folder):
            self._send(folder)

    def find(self, folder: Path) -> Literal["active", "deleted", "missing"]:
        """Return the state of the run in MLflow; in the pause after a failure, "active". Raises DeliveryError."""
        if self._pause.is_on:
            return "active"
        with self._reaching(folder):
            there = _find(*self._connected(folder), read_run(folder)["run_id"])
        if there is None:
            return "missing"
        return "active" if there.info.lifecycle_stage == "active" else "deleted"

    def restore(self, folder: Path) -> None:
        with self._reaching(folder):
            client, experiment_id = self._connected(folder)
            there = _find(client, experiment_id, read_run(folder)["run_id"])
            if there is not None:
                client.restore_run(there.info.run_id)

    @contextlib.contextmanager
    def _reaching(self, folder: Path) -> Iterator[None]:
        """Return a context for requests to MLflow about a run; a failure raises DeliveryError and extends the pause."""
        try:
            # warnings of mlflow about its own dependencies
            with lock(folder), warnings.catch_warnings(action="ignore"):
                yield
        except Exception as error:  # errors of mlflow, a driver or a cloud's library must not end training
            self._pause.lengthen()
            self._connections.clear()
            reason = str(error) if isinstance(error, HydromelError) else one_line(error)
            raise DeliveryError(f"MLflow at {without_credentials(self.uri)}: {reason}") from error
        self._pause.end()

    def describe(self) -> str:
        """Return the command and address that open the experiment in MLflow, unless it was not reached."""
        if self._pause.is_on:
            return f"MLflow at {without_credentials(self.uri)} was not reached; `hydromel-sync` delivers the records"
        known = next(iter(self._connections.values()), None)
        experiment_id = known[1] if known else None
        charts = not self.parent_runs  # which leave out runs below others that are folded
        if self.uri.startswith(("http:", "https:")):
            return f"MLflow: {page(self.uri, experiment_id, charts)}"
        file = Path(sqlite_path(self.uri)).absolute()
        uri = f"{SQLITE}{file}" if self.uri.startswith(SQLITE) else without_credentials(self.uri)
        address = page(LOCAL_SERVER, experiment_id, charts)
        return f"MLflow: `mlflow server --workers 1 --backend-store-uri '{uri}'`, then {address}"

    def _absolute_uri(self, folder: Path) -> str:
        if not self.uri.startswith(SQLITE):
            return self.uri
        written = sqlite_path(self.uri)
        return SQLITE + str(from_working_directory(folder, written)) + self.uri.removeprefix(SQLITE + written)

    def _connected(self, folder: Path) -> tuple[MlflowClient, str]:
        uri = self._absolute_uri(folder)
        if uri not in self._connections:
            self._connections[uri] = connect(uri, self.experiment, self.artifact_location, self.timeout_s)
        return self._connections[uri]

    def _send(self, folder: Path) -> None:
        fingerprint, target = fingerprint_of(folder), self.target(folder)
        run, result = read_run(folder), read_result(folder)
        client, experiment_id = self._connected(folder)
        tags, parent = fields.tags(run, result), None
        sweep = run.get("sweep_id")
        if self.parent_runs and sweep and "'" not in sweep:  # our ids have no quote; MLflow's search cannot escape it
            parent = parent_of(client, experiment_id, sweep, tags)
            tags |= {PARENT: parent}
        there = _find(client, experiment_id, run["run_id"]) or client.create_run(
            experiment_id, int(run["created"] * 1000), tags, run.get("name") or None
        )
        run_id, progress = there.info.run_id, load_progress(folder, target)
        if progress.get("run_id") != run_id:
            progress = Progress(run_id=run_id)
        if there.info.lifecycle_stage == "active":  # one that was deleted in MLflow stays deleted
            _send_params(client, there, fields.params(folder))
            self._send_records(folder, client, progress)
            if run["status"] == run_schema.RUNNING:
                _send_tags(client, run_id, tags)
                if there.info.status != "RUNNING":
                    client.update_run(run_id, status="RUNNING")
            else:
                self._send_end(folder, client, tags, progress)
                if parent is not None:
                    end_parent(client, parent, run)
        elif run["status"] != run_schema.RUNNING:
            log.warning("warning: %s was deleted in MLflow; `hydromel-sync --restore` brings it back", folder)
        progress["fingerprint"] = fingerprint
        save_progress(folder, target, progress)

    def _send_records(self, folder: Path, client: MlflowClient, progress: Progress) -> None:
        """Send the records that were added to `metrics.jsonl` and `system.jsonl` since the last time."""
        for batch, end in _batches(folder, run_schema.METRICS, progress.get("metrics_bytes", 0)):
            client.log_batch(progress["run_id"], metrics=batch)
            progress["metrics_bytes"] = end
            save_progress(folder, self.target(folder), progress)
        for batch, end in _batches(folder, run_schema.SYSTEM, progress.get("system_bytes", 0)):
            client.log_batch(progress["run_id"], metrics=batch)
            progress["system_bytes"] = end
            save_progress(folder, self.target(folder), progress)

    def _send_end(self, folder: Path, client: MlflowClient, tags: Mapping[str, str], progress: Progress) -> None:
        """Send the files and figures of an ended run, and its status last, so that an ended run is complete."""
        run, result, run_id = read_run(folder), read_result(folder), progress["run_id"]
        ended_ms = ended_at(run)
        if result is not None:
            # at step 0 for every run: MLflow draws such figures as bars, and figures of different steps as lone points
            client.log_batch(run_id, metrics=_metrics(fields.summary(result), ended_ms, 0))
            _send_data_set(client, run_id, result)
        sent = progress.setdefault("artifacts", {})
        for path, place in fields.artifacts(folder):
            digest, name = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(), f"{place or ''}/{path.name}"
            if sent.get(name) != digest:
                _send_file(client, run_id, path, place)
                sent[name] = digest
                save_progress(folder, self.target(folder), progress)
        _send_tags(client, run_id, tags)
        status = "KILLED" if run["status"] == run_schema.INTERRUPTED else run["status"].upper()
        client.set_terminated(run_id, status, ended_ms)
        if result is not None and (self.log_model == "best" or (self.log_model == "auto" and not run.get("sweep_id"))):
            self._send_model(folder, client, run_id, result)  # last: a server that takes no models has all the rest

    def _send_model(self, folder: Path, client: MlflowClient, run_id: str, result: ResultRecord) -> None:
        from runner.tracking.mlflow_model import log_model, missing_file, register

        if (missing := missing_file(folder)) is not None:
            log.warning("warning: %s has no %s, so no model is logged", folder, missing)
            return
        model_id = log_model(client, run_id, folder, result)
        if self.register is not None:
            register(client, self.register, model_id, run_id, alias="newest")


def _find(client: MlflowClient, experiment_id: str, run_id: str) -> Run | None:
    """Return the run, even a deleted one; None if there is none."""
    from mlflow.entities import ViewType

    wanted = f"tags.`{run_schema.TAG_RUN_ID}` = '{run_id}'"
    matches = client.search_runs([experiment_id], wanted, ViewType.ALL, max_results=1)
    return matches[0] if matches else None


def _send_params(client: MlflowClient, there: Run, params: Mapping[str, str]) -> None:
    """Send the missing params. They are write-once: a resumed run keeps the values of its start."""
    from mlflow.entities import Param

    missing = [Param(name, value) for name, value in params.items() if name not in there.data.params]
    client.log_batch(there.info.run_id, params=missing)


def _send_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _send_data_set(client: MlflowClient, run_id: str, result: ResultRecord) -> None:
    """Name the data set as the run's input: its digest is the data's fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    name, digest = result["dataset"], str(result["provenance"].get("data_fingerprint"))[:36]
    # MLflow shows it beside the data set
    profile = json.dumps({"tokens": result.get("tokens"), "vocab": result.get("vocab")})
    data_set = Dataset(name, digest, source_type="hydromel", source=name, schema=None, profile=profile)
    inputs = [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])]
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException:
        client.log_inputs(run_id, inputs)  # another run added the same data set at the same time; now it exists


def _send_file(client: MlflowClient, run_id: str, path: Path, place: str | None) -> None:
    if path.name == run_schema.RESOLVED:
        client.log_text(run_id, without_credentials(path.read_text(encoding="utf-8")), path.name)
    else:
        client.log_artifact(run_id, str(path), place)


def _batches(folder: Path, name: str, start: int) -> Iterator[tuple[list[Metric], int]]:
    """Yield metrics from byte `start` of a file of records, in batches as large as a call allows, and their ends."""
    batch: list[Metric] = []
    end = start
    for record, after in read_metrics(folder, start, name):
        metrics = _metrics(record["metrics"], int(record["time"] * 1000), record["step"])
        if batch and len(batch) + len(metrics) > _METRICS_A_CALL:
            yield batch, end
            batch = []
        batch, end = batch + metrics, after
    if end > start:
        yield batch, end


def _metrics(values: Mapping[str, float | None], time_ms: int, step: int) -> list[Metric]:
    from mlflow.entities import Metric

    known = [(name, value) for name, value in values.items() if value is not None]
    return [Metric(fields.allowed_name(name), value, time_ms, step) for name, value in known]
