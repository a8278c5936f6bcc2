"""Trackers: they deliver a run's folder to a store. Repeated deliveries do not duplicate anything.

Progress is recorded in the folder itself (`delivered.json`, by target), under a lock. A tracker that fails
raises `DeliveryError`; nothing is lost, since the folder keeps everything, and a later delivery continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from filelock import FileLock, Timeout
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common import run_schema
from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.files import append, cut_torn_line, write_json
from runner.common.records import parse
from runner.common.types import FilePath
from runner.tracking.run_folder import read_metrics, read_result, read_run

log = logging.getLogger(__name__)
_LOCK_WAIT_SECONDS = 30.0
_LONGEST_PAUSE_S = 600.0


class Progress(TypedDict, total=False):
    """The progress of the delivery of a run to one target."""

    fingerprint: str  # fingerprint of the folder when all of it had been sent (`fingerprint_of`)
    run_id: str  # MLflow's own id of the run
    metrics_bytes: int  # size of the part of metrics.jsonl that was sent
    system_bytes: int  # size of the part of system.jsonl that was sent
    events_bytes: int  # size of TensorBoard's file after the last delivery
    artifacts: dict[str, str]  # hash of each file that was sent, by its name


class DeliveryError(HydromelError):
    """The store was unreachable or refused. Training continues; `hydromel-sync` or a later run delivers the records."""


_PROGRESS = TypeAdapter(dict[str, Progress])


@dataclass
class Pause:
    """The pause after a failure to reach a store, which doubles with each further one."""

    retry_s: float  # seconds of the first pause
    failures: int = 0
    _until: float = 0.0

    @property
    def is_on(self) -> bool:
        """True until the pause is over."""
        return time.monotonic() < self._until

    def lengthen(self) -> None:
        """Start the next, longer pause after a failure."""
        self.failures += 1
        seconds = min(self.retry_s * 2 ** (self.failures - 1), _LONGEST_PAUSE_S)
        self._until = time.monotonic() + seconds

    def end(self) -> None:
        """Reset the pause after a success."""
        self.failures, self._until = 0, 0.0


class Tracker(Protocol):
    def check(self) -> None:
        """Check the options before training, without contacting the store. Raises HydromelError."""
        ...

    def target(self, folder: Path) -> str:
        """Return where this folder's records go, without secrets: the key of `delivered.json`."""
        ...

    def deliver(self, folder: Path, final: bool = False) -> None:
        """Send everything that has not been sent yet. Raises DeliveryError.

        After a failure, calls do nothing for a time that doubles with each failure; `final` always tries.
        """
        ...

    def describe(self) -> str:
        """Return one line on where the records are and how to view them."""
        ...


@runtime_checkable
class CanRestore(Protocol):
    """An optional ability of trackers: users can delete runs in their store, and have them back."""

    def find(self, folder: Path) -> Literal["active", "deleted", "missing"]:
        """Return the state of the run in the store. Raises DeliveryError."""
        ...

    def restore(self, folder: Path) -> None:
        """Undo the deletion of the run in the store. Raises DeliveryError."""
        ...


def deliver_or_warn(tracker: Tracker, folder: Path, final: bool = False) -> bool:
    """Deliver the records of a run; if that fails, warn and return False, since the folder keeps them."""
    try:
        tracker.deliver(folder, final)
    except HydromelError as error:  # also one about the folder, such as a full disk
        log.warning("warning: %s; records stay in %s, `hydromel-sync` delivers them", error, folder)
        return False
    return True


class NoTracker:
    """A tracker that sends nothing; the run's folder has everything."""

    def check(self) -> None:
        pass

    def target(self, folder: Path) -> str:
        return "none"

    def deliver(self, folder: Path, final: bool = False) -> None:
        pass

    def describe(self) -> str:
        return "not tracked; each run's folder has its records"


@dataclass(kw_only=True, eq=False)
class JsonlTracker:
    """A tracker that writes records of all runs, and their outcomes, as lines of one shared file.

    Args:
        path: the file; a relative one is relative to the run's working directory.
    """

    path: FilePath

    def check(self) -> None:
        if not self.path or Path(self.path).is_dir():
            raise HydromelError(f"tracker.path={self.path!r}: the name of a file is needed, such as runs.jsonl")

    def target(self, folder: Path) -> str:
        return f"jsonl:{from_working_directory(folder, self.path)}"

    def describe(self) -> str:
        return f"records of all runs: {Path(self.path).absolute()}"

    def deliver(self, folder: Path, final: bool = False) -> None:
        shared = from_working_directory(folder, self.path)
        try:
            shared.parent.mkdir(parents=True, exist_ok=True)
            with lock(folder), FileLock(f"{shared}.lock", timeout=_LOCK_WAIT_SECONDS):
                shared.touch()
                cut_torn_line(shared)
                self._append(folder, shared)
        except (OSError, Timeout) as error:
            raise DeliveryError(f"cannot write {shared}: {getattr(error, 'strerror', None) or error}") from error

    def _append(self, folder: Path, shared: Path) -> None:
        """Append the records that the shared file lacks, under the locks; an earlier delivery may be incomplete."""
        fingerprint, run = fingerprint_of(folder), read_run(folder)
        arrived = _lines_of(run["run_id"], shared)
        n_records = sum("metrics" in line for line in arrived)
        records = [record for record, _ in read_metrics(folder)][n_records:]
        lines: list[dict[str, object]] = [{"run_id": run["run_id"], **record} for record in records]
        closed = bool(arrived) and arrived[-1].get("status") == run["status"]
        if run["status"] != run_schema.RUNNING and (lines or not closed):
            # `read_result` checks the file; what is delivered is its raw content, with nulls and unknown keys
            result = read_result(folder) and json.loads((folder / run_schema.RESULT).read_bytes())
            lines.append({"run_id": run["run_id"], "status": run["status"], "result": result})
        append(shared, "".join(json.dumps(line) + "\n" for line in lines).encode())
        save_progress(folder, self.target(folder), {"fingerprint": fingerprint})


def _lines_of(run_id: str, shared: Path) -> list[dict[str, object]]:
    with shared.open("rb") as file:
        parsed = [json.loads(line) for line in file if run_id.encode() in line]
    return [line for line in parsed if line["run_id"] == run_id]


def lock(folder: Path) -> FileLock:
    """Return the lock that a delivery holds, so that the run itself and `hydromel-sync` do not both send a record."""
    return FileLock(folder / f"{run_schema.DELIVERED}.lock", timeout=_LOCK_WAIT_SECONDS)


def load_progress(folder: Path, target: str) -> Progress:
    """Return the recorded progress of deliveries of `folder` to `target`."""
    return _all_progress(folder).get(target, Progress())


def save_progress(folder: Path, target: str, progress: Progress) -> None:
    """Write `progress` atomically. The caller holds the lock."""
    write_json(folder / run_schema.DELIVERED, _all_progress(folder) | {target: progress})


def _all_progress(folder: Path) -> dict[str, Progress]:
    path = folder / run_schema.DELIVERED
    if not path.exists():
        return {}
    try:
        return parse(_PROGRESS, read_bytes(path), str(path))
    except HydromelError as error:
        raise HydromelError(f"{error}; remove it to deliver the whole run again") from error


def is_delivered(folder: Path, tracker: Tracker) -> bool:
    """Return True if the folder is marked as completely delivered; the store is not contacted."""
    if isinstance(tracker, NoTracker):
        return True
    return load_progress(folder, tracker.target(folder)).get("fingerprint") == fingerprint_of(folder)


def fingerprint_of(folder: Path) -> str:
    """Return a hash that changes whenever there is something to deliver: status, result, records or plots."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (folder / run_schema.RUN, folder / run_schema.RESULT):
        digest.update(path.read_bytes() if path.exists() else b"-")
    plots = sorted(path for path in (folder / run_schema.PLOTS).rglob("*") if path.is_file())
    samples = [path for path in [folder / run_schema.SYSTEM] if path.exists()]
    for path in (folder / run_schema.METRICS, *samples, *plots):
        digest.update(f"{path.name} {path.stat().st_size if path.exists() else 0}\n".encode())
    return digest.hexdigest()


def from_working_directory(folder: Path, path: str) -> Path:
    """Return the absolute path that `path` named when the run was started, which may have been in another directory.

    Raises HydromelError if that directory does not exist (the run was copied from elsewhere).
    """
    if Path(path).is_absolute():
        return Path(path)
    base = Path(read_run(folder).get("cwd") or ".")
    if not base.is_dir():
        raise HydromelError(
            f"{folder} was started in {base}, which does not exist on this machine, so '{path}' cannot be resolved; "
            "give hydromel-sync --uri"
        )
    return base.absolute() / path
