"""The folder of a run: the complete record, from which trackers are fed.

`run.json` has the identity and status of a run, `metrics.jsonl` its records, `result.json` its outcome. Whole files are
replaced atomically. JSON has no NaN and no infinity: such values are written as null (in a record: the
metric was logged, and was not a finite number), and are not sent to trackers.

A run that is being written holds a lock on `run.lock`; the operating system releases it when the process
ends for any reason. The lock shows whether a run is active, and prevents two processes from writing the same run.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from runner.common import records, run_schema
from runner.common.bounded import MOST_METRICS_BYTES, check_size, read_bytes, read_lines
from runner.common.errors import HydromelError, shortened
from runner.common.files import CannotWrite, append, cannot_write, cut_torn_line, remove_leftovers, to_json, write_json
from runner.common.records import AdviceRecord, ChangeRecord, InitFromRecord, MetricsLine, ResultRecord, RunRecord
from runner.common.seal import folder_is_made_here, seal_of

log = logging.getLogger(__name__)
_LONGEST_REASON = 600  # most characters of the reason why a run failed in a message
_PROBE_SECONDS = 1.0  # a process that checks a run holds its lock for a moment


class RunFolder:
    """The folder of a run that this process writes. `open` one, and `begin` the run in it."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock = path, lock
        self.is_new = not (path / run_schema.RUN).exists()
        self.run = _new_run() if self.is_new else read_run(path)
        if not (self.is_new or folder_is_made_here(path)):
            self.run["cwd"] = str(Path.cwd())
        self._begun = False
        self._buffer: list[str] = []
        self._logged: dict[int, set[str]] = {}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create `path` and lock it; nothing of a run in it changes before `begin`.

        Raises:
            HydromelError: another live process writes this run, or the folder cannot be written.
        """
        path = path.absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / run_schema.LOCK, timeout=_PROBE_SECONDS)
            lock.acquire()
        except Timeout:
            raise HydromelError(f"{path} is being written by another process; wait for it or stop it") from None
        except OSError as error:
            raise cannot_write(path, error) from error
        remove_leftovers(path)
        try:
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    def set_aside(self) -> Path:
        """Move the records of a run that is not continued below this folder, and return their folder.

        The next one is a run of its own, since its options may differ. `hydromel-sync` finds both.

        Raises:
            HydromelError: the folder cannot be written.
        """
        earlier = _ended(self.path, read_run(self.path))
        place = self.path / run_schema.EARLIER / earlier["run_id"]
        write_json(self.path / run_schema.RUN, earlier)
        try:
            place.mkdir(parents=True, exist_ok=True)
            # run.json last: if this process is killed meanwhile, the next one sees the earlier run and moves the rest
            for name in (
                run_schema.RESOLVED,
                run_schema.METRICS,
                run_schema.SYSTEM,
                run_schema.DELIVERED,
                run_schema.RUN,
            ):
                if (self.path / name).exists():
                    (self.path / name).replace(place / name)
        except OSError as error:
            raise cannot_write(place, error) from error
        prepared, self.run, self.is_new = self.run, _new_run(), True
        if (advice := prepared.get("advice")) is not None:
            self.run["advice"] = advice
        if (source := prepared.get("init_from")) is not None:
            self.run["init_from"] = source
        return place

    def begin(
        self,
        *,
        name: str,
        experiment: str | None,
        sweep_id: str | None,
        tags: Mapping[str, str],
        tracker: Mapping[str, object],
    ) -> None:
        """Record that the run starts or is resumed; a resumed run keeps its id, creation time and working directory.

        A working directory that another installation wrote is not kept. `tracker` is that of the config, and the other
        arguments are keys of `RunRecord`.

        Raises:
            HydromelError: the folder cannot be written.
        """
        if not self.is_new and self.run["status"] == run_schema.FAILED:
            log.info("continuing a run that %s", how_it_ended(self.run))
        run: RunRecord = self.run | {"name": name, "experiment": experiment, "sweep_id": sweep_id, "tags": dict(tags)}
        run |= {"seal": seal_of(run, tracker), "status": run_schema.RUNNING, "ended": None, "error": None}
        run |= {"pid": os.getpid(), "host": socket.gethostname()}
        with contextlib.suppress(OSError, KeyError):  # a container may have no name for its user
            run["user"] = getpass.getuser()
        self._logged = _repaired(self.path / run_schema.METRICS)
        if (system := self.path / run_schema.SYSTEM).exists():
            cut_torn_line(system)
        self._begun = True
        self._write(run)

    def set_result_aside(self) -> None:
        """Rename the result of a finished run that is trained further, and the folder of its tables."""
        result, earlier = self.path / run_schema.RESULT, self.path / run_schema.EARLIER_TABLES
        if not result.exists():
            return
        result.replace(self.path / run_schema.EARLIER_RESULT)
        shutil.rmtree(earlier, ignore_errors=True)  # detail tables of an earlier result
        with contextlib.suppress(FileNotFoundError):
            (self.path / run_schema.TABLES).replace(earlier)

    def log(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Buffer `metrics` of update number `step`. A second value for the same (step, name) is ignored."""
        logged = self._logged.setdefault(step, set())
        new = {name: float(value) for name, value in metrics.items() if name not in logged}
        logged.update(new)
        if new:
            record = {"time": time.time(), "step": step, "epoch": epoch, "metrics": new}
            self._buffer.append(to_json(record, indent=None))

    def flush(self) -> None:
        """Append the buffered records to `metrics.jsonl` in one write; if the disk is full they stay buffered."""
        if not self._buffer:
            return
        path = self.path / run_schema.METRICS
        try:
            append(path, "".join(self._buffer).encode())
        except OSError as error:
            raise cannot_write(path, error) from error
        self._buffer.clear()

    def write_result(self, result: Mapping[str, object]) -> None:
        """Write `result.json`, the last file of a run: a run with a result is finished."""
        write_json(self.path / run_schema.RESULT, result)

    def set_status(self, status: str, error: str | None = None) -> None:
        """Update the status in `run.json`; any status except running ends the run. `error`: the reason, in one line."""
        ended = None if status == run_schema.RUNNING else time.time()
        self._write({**self.run, "status": status, "ended": ended, "error": error})

    def set_advice(self, advice: AdviceRecord) -> None:
        """Write the choice of `batching=auto` to `run.json` (once the run starts), where a resumed run finds it."""
        self._write({**self.run, "advice": advice})

    def add_changes(self, changes: list[ChangeRecord]) -> None:
        """Add options that changed with this resumption to `run.json`."""
        known = self.run.get("changes", [])
        if new := [change for change in changes if change not in known]:
            self._write({**self.run, "changes": [*known, *new]})

    def set_init_from(self, source: InitFromRecord | None) -> None:
        """Write to `run.json` which run this one starts from."""
        if source != self.run.get("init_from"):
            self._write({**self.run, "init_from": source})

    def _write(self, run: RunRecord) -> None:
        if self._begun:
            write_json(self.path / run_schema.RUN, run)
        self.run = run

    def close(self) -> None:
        """Write the buffered records and release the lock of the folder."""
        try:
            self.flush()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(CannotWrite):
            self.close()


class OthersFolder(RunFolder):
    """The folder of a run that another process writes: everything in it can be read, and nothing is recorded."""

    @classmethod
    def open(cls, path: Path) -> Self:
        path = path.absolute()
        return cls(path, FileLock(path / run_schema.LOCK))  # never acquired

    def log(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        pass

    def _write(self, run: RunRecord) -> None:
        self.run = run


def _new_run() -> RunRecord:
    run_id, cwd = uuid.uuid4().hex, str(Path.cwd())
    return {"run_id": run_id, "created": time.time(), "cwd": cwd, "status": run_schema.RUNNING}


def read_run(folder: Path) -> RunRecord:
    """Return the content of `run.json`, with the status `finished` if there is a result: that file is written last.

    Raises HydromelError if `folder` is not the folder of a run, or the file is damaged.
    """
    path, result = folder / run_schema.RUN, folder / run_schema.RESULT
    if not path.exists():
        raise HydromelError(f"{folder} is not a run's folder: it has no {path.name}")
    run = records.parse_run(read_bytes(path), str(path))
    if run["status"] == run_schema.RUNNING and result.exists():
        run |= {"status": run_schema.FINISHED, "ended": run.get("ended") or result.stat().st_mtime}
    return run


def how_it_ended(run: RunRecord) -> str:
    """Return how a run ended, with the reason: `failed (the loss is nan at update 3)`."""
    said = {run_schema.RUNNING: "is running, or its process died", run_schema.INTERRUPTED: "was interrupted"}
    reason = f" ({shortened(str(run['error']), _LONGEST_REASON)})" if run.get("error") else ""
    return said.get(run["status"], shortened(run["status"])) + reason


def read_result(folder: Path) -> ResultRecord | None:
    """Return the content of `result.json`; None while there is none. Raises HydromelError if it is damaged."""
    path = folder / run_schema.RESULT
    return records.parse_result(read_bytes(path), str(path)) if path.exists() else None


def read_metrics(folder: Path, start: int = 0, name: str = run_schema.METRICS) -> Iterator[tuple[MetricsLine, int]]:
    """Yield the records of `metrics.jsonl` from byte `start` on, each with the byte at which it ends.

    `name` is that file, or `system.jsonl`, which has the same form.

    A last line without a line break is incomplete and skipped. A file shorter than `start` was replaced, and is read
    from its start. Raises HydromelError if a line is damaged.
    """
    path = folder / name
    if not path.exists():
        return
    with path.open("rb") as file:
        end = start if start <= path.stat().st_size else 0
        file.seek(end)
        for line in read_lines(file, str(path)):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield records.parse_metrics_line(line, f"{path}, the line that ends at byte {end},"), end


def is_alive(folder: Path) -> bool:
    """Return True if a process is writing this run now."""
    try:
        with FileLock(folder / run_schema.LOCK, timeout=0):
            return False
    except Timeout:
        return True


def discard_unbegun(folder: Path) -> None:
    """Remove what is left in a run's folder if the run never started: its messages, its lock, and the empty folder."""
    with contextlib.suppress(OSError):
        if not (folder / run_schema.RUN).exists():
            for name in (run_schema.CONSOLE, run_schema.LOCK):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def mark_dead(folder: Path) -> RunRecord:
    """Return `read_run(folder)`, after cleaning up if the run's process on this machine has died.

    Its temporary files are removed, and a run that has not ended is marked as interrupted.

    A run of another machine is not changed, since its lock may not be visible here.
    """
    try:
        with FileLock(folder / run_schema.LOCK, timeout=0):  # held, so that nobody resumes the run meanwhile
            run = read_run(folder)
            if run.get("host") != socket.gethostname():
                return run
            remove_leftovers(folder)
            if run["status"] == run_schema.RUNNING:
                run = _ended(folder, run)
                write_json(folder / run_schema.RUN, run)
            return run
    except Timeout:
        return read_run(folder)


def _ended(folder: Path, run: RunRecord) -> RunRecord:
    """Return the record of a run whose process has ended: one that is still marked as running was interrupted."""
    if run["status"] != run_schema.RUNNING:
        return run
    last = max((record["time"] for record, _ in read_metrics(folder)), default=run["created"])
    return {**run, "status": run_schema.INTERRUPTED, "ended": last, "error": "its process died"}


def _repaired(path: Path) -> dict[int, set[str]]:
    """Repair the file of records and return its names of metrics by step."""
    logged: dict[int, set[str]] = {}
    if path.exists():
        check_size(path, MOST_METRICS_BYTES)
        cut_torn_line(path)
        for record, _ in read_metrics(path.parent):
            logged.setdefault(record["step"], set()).update(record["metrics"])
    return logged
