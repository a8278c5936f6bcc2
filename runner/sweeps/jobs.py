"""The jobs of a sweep: each runs in a new process and its own folder, and is skipped if it has finished."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError, shortened
from runner.common.files import cannot_write
from runner.common.records import parse_result, shown
from runner.common.run_schema import LOCK, RESULT
from runner.config.hashes import job_hash, name_of_job
from runner.config.saved import write_config
from runner.config.schema import RunConfig
from runner.sweeps.pool import Pool
from runner.sweeps.process import INTERRUPTED, reason, run_job_aside, run_job_here
from runner.sweeps.slots import WHOLE, Slot, describe, slots
from runner.terminal.command_line import failed
from runner.terminal.progress import Stage, clock, shows_progress, stage
from runner.tracking.run_folder import read_metrics, read_result

log = logging.getLogger(__name__)
JOB_LOCK = "job.lock"  # in a job's folder; the sweep that runs the job holds it
_PROBE_SECONDS = 1.0  # wait this long without a message: a process that checks a run holds its lock for a moment


class SweepJobs:
    """The jobs of this command, and how they ended. At the end of the context all of them have ended."""

    def __init__(self) -> None:
        self.code = 0
        self.failed: dict[str, str] = {}  # reasons by name
        self.finished: list[str] = []
        self.sweep: Path | None = None
        self.number, self.count = 0, 0  # of the last job that was added, from 1, and of all jobs; 0: unknown
        self.search: Callable[[], int] | None = None  # started when Hydra is done: a search composes configs of its own
        self.is_launched = False  # True in a process that a launcher of Hydra has started for one job
        self._pool: Pool | None = None
        self._bars = contextlib.ExitStack()
        self._bar: Stage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        with self._bars:
            if pool is not None:
                pool.__exit__(kind, error, trace)

    def add(self, config: RunConfig, title: str) -> None:
        """Run one job below `sweep` unless it is finished; a failure is recorded, not raised.

        With `sweep.jobs` above 1 it runs as soon as there is a slot for it. A job that another process runs is waited
        for: jobs of one sweep at the same time would disturb each other's speeds. `title` are the job's options, for
        messages.

        Raises:
            HydromelError: there can be no such sweep: no name, or more jobs at a time than slots.
            KeyboardInterrupt: this process or its job was interrupted.
        """
        self.number += 1
        place = f"job {self.number}/{self.count}" if self.count else ""
        sweep_id(config)
        pool = self._opened(config)
        pool.add(lambda slot: self._run(config, title, place, slot, pool))

    def _opened(self, config: RunConfig) -> Pool:
        """Return the pool, which the first job opens; raises as `add`."""
        sweep = config.sweep
        if self._pool is None:
            own = (
                [WHOLE]
                if self.is_launched
                else slots("sweep.jobs", sweep.jobs, sweep.devices, config.device, config.ranks)
            )
            self._pool = Pool(own)
            if self._pool.is_parallel:
                log.info(describe(self._pool.slots, "sweep.jobs"))
                self._bar = self._bars.enter_context(stage("sweep", self.count or None))
        elif len(self._pool.slots) != sweep.jobs and not self.is_launched:
            raise HydromelError(f"sweep.jobs={sweep.jobs}: a sweep has one number of jobs at a time; give one value")
        return self._pool

    def _run(self, config: RunConfig, title: str, place: str, slot: Slot, pool: Pool) -> None:
        assert self.sweep is not None
        name, beside = folder_name(config), self.is_launched or pool.is_parallel
        folder = self.sweep / name
        try:
            with _claimed(folder, pool.stopping):
                if (folder / RESULT).exists():
                    parse_result(read_bytes(folder / RESULT), str(folder / RESULT))  # a damaged one is no finished job
                    log.info("%s: finished earlier, skipped", name)
                    code = 0
                else:
                    log.info("--- %s%s: %s", f"{place}, " if place else "", name, title)
                    write_config(config, folder)
                    code = _aside(config, folder, place, slot, pool) if beside else run_job_here(folder, place, slot)
        except HydromelError as error:
            self.note_failure(title, str(error), str(error))
            return
        if code == INTERRUPTED and not beside:
            raise KeyboardInterrupt
        if code == 0:
            self.finished.append(name)
            self._count()
        else:
            why = reason(folder, code)
            self.note_failure(name, why, None if code == 1 else f"{name}: {why}")

    def note_failure(self, name: str, why: str, line: str | None = None) -> None:
        """Record a failed job; `line` is the error to log, None if the job has done so."""
        if line is not None:
            failed(line)
        self.failed[name] = why
        self.code = 1
        self._count()

    def _count(self) -> None:
        if self._bar is not None:
            self._bar.done = len(self.finished) + len(self.failed)
            self._bar.detail = f"{len(self.failed)} failed" if self.failed else ""

    def tell(self) -> None:
        """Log the last lines of a sweep: the failed jobs with the reasons, and how to compare the others."""
        assert self.sweep is not None
        for name, why in self.failed.items():
            log.error("failed: %s: %s", name, why)
        if self.failed:
            log.error(
                "error: %d of %d jobs failed (%s); the others are kept, and sweep.id=%s runs only what is missing",
                len(self.failed),
                len(self.failed) + len(self.finished),
                ", ".join(map(shortened, self.failed)),
                self.sweep.name,
            )
        log.info("compare: hydromel-compare %s", self.sweep)


def sweep_id(config: RunConfig) -> str:
    """Return the name of a sweep, of repeats or of a search; raise HydromelError if it has none."""
    if config.sweep.id is None:
        raise HydromelError("sweep.id=null is for single runs; several runs need sweep.id=NAME, or no sweep.id at all")
    return str(config.sweep.id)


def folder_name(config: RunConfig) -> str:
    """Return the name of a job's folder: the options that most sweeps vary, then a hash of all options."""
    return f"{name_of_job(config.resolved)}-{job_hash(config.resolved)[:8]}"


@contextlib.contextmanager
def _claimed(folder: Path, stopping: threading.Event) -> Iterator[None]:
    """Hold a job's folder, created if it is missing, against other sweeps; wait while another process runs the job.

    Raises:
        HydromelError: the folder cannot be written.
        KeyboardInterrupt: `stopping` was set, and the job has not begun.
    """
    with contextlib.ExitStack() as held:
        _acquire(folder / JOB_LOCK, stopping, held)
        with contextlib.ExitStack() as run:  # it may have been resumed by itself, or its sweep killed just now
            _acquire(folder / LOCK, stopping, run)
        yield


def _acquire(path: Path, stopping: threading.Event, held: contextlib.ExitStack) -> None:
    """Acquire a lock, which `held` releases; a message is logged while another process holds it."""
    lock = FileLock(path)
    told = False
    while not stopping.is_set():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock.acquire(timeout=_PROBE_SECONDS))
            return
        except Timeout:
            if not told:
                log.info("%s: another process runs it; waiting for its end", path.parent.name)
            told = True
        except OSError as error:
            raise cannot_write(path.parent, error) from error
    raise KeyboardInterrupt


def _aside(config: RunConfig, folder: Path, place: str, slot: Slot, pool: Pool) -> int:
    """Run a job beside others: its lines follow its name or, on a terminal, a bar shows how far it has come."""
    name, read = folder.name, 0
    with stage(name, config.train.epochs) as bar:

        def show(line: str) -> None:
            if line.startswith(("error: ", "warning: ")):
                log.warning("%s | %s", name, line)
            elif not shows_progress():
                log.info("%s | %s", name, line)

        def look() -> None:
            nonlocal read
            if shows_progress():
                read = _look(folder, read, bar)

        code = run_job_aside(folder, place, slot, pool.stopping, show, look)
    if code == 0 and shows_progress():
        log.info("%s: finished after %s%s", name, clock(time.monotonic() - bar.started), _figure(folder))
    return code


def _figure(folder: Path) -> str:
    """Return `, test f1 73.51`, the quality of a finished run."""
    with contextlib.suppress(HydromelError, KeyError):
        if (result := read_result(folder)) is not None:
            metrics, quality = result["metrics"], result["quality"]
            split, figures = ("test", metrics["test"]) if "test" in metrics else ("valid", metrics["valid"])
            if isinstance(value := figures.get(quality["metric"]), float):
                return f", {split} {quality['metric']} {shown(value, quality.get('unit', ''))}"
    return ""


def _look(folder: Path, read: int, bar: Stage) -> int:
    """Show the records of a job since byte `read` in its bar, and return the byte up to which they were read."""
    with contextlib.suppress(HydromelError):
        for record, end in read_metrics(folder, read):
            read = end
            evaluated = any(key.startswith("valid/") for key in record["metrics"])
            bar.done = record["epoch"] if evaluated else record["epoch"] - 1
            bar.detail = f"epoch {record['epoch']}  update {record['step']}"
    return read
