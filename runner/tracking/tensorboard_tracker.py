"""Delivery of runs' folders to TensorBoard: one event file for each run, to which each delivery appends.

The bytes of an event follow from its record, and a delivery continues at the size noted after the last one. So an
interrupted delivery is overwritten, and no event is written twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.records import MetricsLine, RunRecord
from runner.common.types import FilePath
from runner.compat import tensorboard
from runner.tracking import fields
from runner.tracking.run_folder import read_metrics, read_result, read_run
from runner.tracking.tracker import (
    DeliveryError,
    Progress,
    fingerprint_of,
    from_working_directory,
    load_progress,
    lock,
    save_progress,
)


@dataclass(kw_only=True, eq=False)
class TensorboardTracker:
    """A tracker that writes an event file for each run, in a folder of its own.

    Args:
        log_dir: the folder with a folder for each run; a relative path is relative to the run's working directory.
    """

    log_dir: FilePath

    def check(self) -> None:
        if find_spec("tensorboard") is None:
            raise HydromelError("tracker=tensorboard needs TensorBoard: pip install hydromel[tensorboard]")
        if Path(self.log_dir).is_file():
            raise HydromelError(f"tracker.log_dir={self.log_dir}: a file; name a folder")

    def target(self, folder: Path) -> str:
        return f"tensorboard:{from_working_directory(folder, self.log_dir)}"

    def describe(self) -> str:
        return f"TensorBoard: `tensorboard --logdir '{Path(self.log_dir).absolute()}'`"

    def deliver(self, folder: Path, final: bool = False) -> None:
        path = from_working_directory(folder, self.log_dir) / _place(read_run(folder))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock(folder):
                self._append(folder, path)
        except OSError as error:
            raise DeliveryError(f"cannot write {path}: {error.strerror or error}") from error

    def _append(self, folder: Path, path: Path) -> None:
        fingerprint, target = fingerprint_of(folder), self.target(folder)
        progress, size = load_progress(folder, target), path.stat().st_size if path.exists() else 0
        if size < progress.get("events_bytes", 0):  # the file was removed or replaced
            progress = Progress()
        if progress.get("fingerprint") == fingerprint:
            return
        with path.open("r+b" if size else "wb") as file:
            file.truncate(progress.get("events_bytes", 0))
            file.seek(0, os.SEEK_END)
            for event in _events(folder, progress, is_new=file.tell() == 0):
                file.write(event)
            progress["events_bytes"] = file.tell()
            file.flush()
            os.fsync(file.fileno())
        save_progress(folder, target, progress | {"fingerprint": fingerprint})


def _place(run: RunRecord) -> Path:
    """Return the path of a run's file in `log_dir`: runs of a sweep share a folder."""
    names = [run.get("sweep_id"), f"{run.get('name') or 'run'}-{run['run_id'][:8]}"]
    folders = [fields.allowed_name(name).replace("/", "_").lstrip(".") for name in names if name]
    return Path(*folders, f"events.out.tfevents.{run['created']:.0f}.{run['run_id']}")


def _events(folder: Path, progress: Progress, is_new: bool) -> Iterator[bytes]:
    """Yield the events that the file lacks, and update `progress` with the bytes that were read."""
    run, result = read_run(folder), read_result(folder)
    if is_new:
        yield tensorboard.start(fields.params(folder), run["run_id"], run["created"])
    for record, end in read_metrics(folder, progress.get("metrics_bytes", 0)):
        yield _scalars(record)
        progress["metrics_bytes"] = end
    for record, end in read_metrics(folder, progress.get("system_bytes", 0), run_schema.SYSTEM):
        yield _scalars(record)
        progress["system_bytes"] = end
    if result is not None and run["status"] != run_schema.RUNNING:
        step, ended = result["updates"]["count"], run.get("ended") or run["created"]
        yield tensorboard.scalars(fields.summary(result), step, ended)
        yield tensorboard.text("run", fields.note(run, result), step, ended)


def _scalars(record: MetricsLine) -> bytes:
    values = {name: value for name, value in record["metrics"].items() if value is not None}
    return tensorboard.scalars(values, record["step"], record["time"])
