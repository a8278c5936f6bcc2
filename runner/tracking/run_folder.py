"""The folder of a run: the complete record, from which trackers are fed.

`run.json` has the identity and status of a run, `metrics.jsonl` its records, `result.json` its outcome. Whole files are
replaced atomically. JSON has no NaN and no infinity: such values are written as null (in a record: the
metric was logged, and was not a finite number), and are not sent to trackers.

A run that is being written holds a lock on `run.lock`; the operating system releases it when the process
ends for any reason. The lock shows whether a run is active, and prevents two processes from writing the same run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from runner.common import records, run_schema
from runner.common.bounded import MOST_METRICS_BYTES, check_size, read_bytes, read_lines
from runner.common.errors import HydromelError
from runner.common.files import (
    CannotWrite,
    append,
    cannot_write,
    cut_torn_line,
    remove_leftovers,
    to_json,
    write_bytes,
    write_json,
)
from runner.common.records import AdviceRecord, ChangeRecord, InitFromRecord, MetricsLine, ResultRecord, RunRecord

log = logging.getLogger(__name__)
_PROBE_SECONDS = 1.0  # whoever asks whether a run lives holds its lock for a moment


class RunFolder:
    """The folder of a run that this process writes. Make one with `RunFolder.start`."""

    def __init__(self, path: Path, run: RunRecord, lock: FileLock) -> None:
        self.path, self.run, self._lock = path, run, lock
        self._before: bytes | None = None  # run.json of a run that was already there
        self._buffer: list[str] = []
        self._logged = _repaired(path / run_schema.METRICS)

    @classmethod
    def start(
        cls, path: Path, *, name: str, experiment: str | None, sweep_id: str | None, tags: Mapping[str, str]
    ) -> Self:
        """Create `path`, or continue the run in it, which keeps its id, creation time and working directory.

        The other arguments are keys of `RunRecord`.

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
        running, cwd = run_schema.RUNNING, str(Path.cwd())
        record: RunRecord = {"run_id": uuid.uuid4().hex, "created": time.time(), "cwd": cwd, "status": running}
        before = None
        if (path / run_schema.RUN).exists():
            before = (path / run_schema.RUN).read_bytes()
            record |= read_run(path)
            if record["status"] == run_schema.FAILED:
                log.info("continuing a run that %s", how_it_ended(record))
        record |= {"name": name, "experiment": experiment, "sweep_id": sweep_id, "tags": dict(tags)}
        record |= {"status": running, "ended": None, "error": None, "pid": os.getpid(), "host": socket.gethostname()}
        run = cls(path, record, lock)
        run._before = before
        write_json(path / run_schema.RUN, run.run)
        return run

    def restore(self) -> None:
        """Write `run.json` as it was before this process: the run was not continued."""
        if self._before is not None:
            write_bytes(self.path / run_schema.RUN, self._before)

    def set_result_aside(self) -> None:
        """Rename the result of a finished run that is trained further."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / run_schema.RESULT).replace(self.path / run_schema.EARLIER_RESULT)

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
        """Write the choice of `batching=auto` to `run.json`, where a resumed run finds it."""
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
    reason = f" ({run['error']})" if run.get("error") else ""
    return said.get(run["status"], run["status"]) + reason


def read_result(folder: Path) -> ResultRecord | None:
    """Return the content of `result.json`; None while there is none. Raises HydromelError if it is damaged."""
    path = folder / run_schema.RESULT
    return records.parse_result(read_bytes(path), str(path)) if path.exists() else None


def read_metrics(folder: Path, start: int = 0) -> Iterator[tuple[MetricsLine, int]]:
    """Yield the records of `metrics.jsonl` from byte `start` on, each with the byte at which it ends.

    A last line without a line break is incomplete and skipped. A file shorter than `start` was replaced, and is read
    from its start. Raises HydromelError if a line is damaged.
    """
    path = folder / run_schema.METRICS
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
                last = max((record["time"] for record, _ in read_metrics(folder)), default=run["created"])
                run |= {"status": run_schema.INTERRUPTED, "ended": last, "error": "its process died"}
                write_json(folder / run_schema.RUN, run)
            return run
    except Timeout:
        return read_run(folder)


def _repaired(path: Path) -> dict[int, set[str]]:
    """Repair the file of records and return its names of metrics by step."""
    logged: dict[int, set[str]] = {}
    if path.exists():
        check_size(path, MOST_METRICS_BYTES)
        cut_torn_line(path)
        for record, _ in read_metrics(path.parent):
            logged.setdefault(record["step"], set()).update(record["metrics"])
    return logged
