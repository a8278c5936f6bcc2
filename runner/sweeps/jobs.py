"""The jobs of a sweep: each runs in a new process and its own folder, and is skipped if it has finished."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.files import cannot_write
from runner.common.records import parse_result
from runner.common.run_schema import LOCK, PATIENCE_SECONDS, RESULT
from runner.config.hashes import job_hash, name_of_job
from runner.config.saved import write_config
from runner.config.schema import RunConfig
from runner.terminal.command_line import failed
from runner.terminal.interruption import PASSED_ON
from runner.terminal.progress import JOB

log = logging.getLogger(__name__)
JOB_LOCK = "job.lock"  # in a job's folder; the sweep that runs the job holds it
_PROBE_SECONDS = 1.0  # wait this long without a message: a process that checks a run holds its lock for a moment


class SweepJobs:
    """The jobs of this command that ran in this process, and how they ended."""

    def __init__(self) -> None:
        self.code = 0
        self.failed: list[str] = []
        self.done = 0
        self.sweep: Path | None = None
        self.number, self.count = 0, 0  # of the job that runs, from 1, and of all jobs; 0: unknown
        self.search: Callable[[], int] | None = None  # started when Hydra is done: a search composes configs of its own

    def run(self, config: RunConfig, title: str) -> bool:
        """Run one job below `sweep` unless it is finished, and return whether it is; a failure is recorded, not raised.

        A job that another process runs is waited for: jobs of one sweep at the same time would disturb each other's
        speeds. `title` are the job's options, for messages. Raises KeyboardInterrupt if it was interrupted.
        """
        assert self.sweep is not None
        self.number += 1
        name = folder_name(config)
        folder = self.sweep / name
        try:
            sweep_id(config)
            with _claimed(folder):
                if (folder / RESULT).exists():
                    parse_result(read_bytes(folder / RESULT), str(folder / RESULT))  # a damaged one is no finished job
                    log.info("%s: finished earlier, skipped", name)
                    code = 0
                else:
                    log.info("--- %s%s: %s", self._place(), name, title)
                    write_config(config, folder)
                    code = _in_fresh_process(folder, self._place())
        except HydromelError as error:
            return self.note_failure(title, failed(str(error)))
        if code == 130:
            raise KeyboardInterrupt
        if code != 0:
            return self.note_failure(name, code)
        self.done += 1
        return True

    def _place(self) -> str:
        """Return the place of the job that runs, such as `job 3/8, `; empty if their number is unknown."""
        return f"job {self.number}/{self.count}, " if self.count else ""

    def note_failure(self, name: str, code: int) -> bool:
        """Record a failed job and return False; a job that ended with 1 has printed the reason."""
        self.failed.append(name)
        self.code = 1
        if code != 1:
            log.error("error: %s ended with code %d", name, code)
        return False

    def tell(self) -> None:
        """Log the last lines of a sweep: the failed jobs, and how to compare the others."""
        assert self.sweep is not None
        if self.failed:
            log.error(
                "error: %d of %d jobs failed (%s); the others are kept, and sweep.id=%s runs only what is missing",
                len(self.failed),
                len(self.failed) + self.done,
                ", ".join(self.failed),
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
def _claimed(folder: Path) -> Iterator[None]:
    """Hold a job's folder, created if it is missing, against other sweeps; wait while another process runs the job.

    Raises:
        HydromelError: the folder cannot be written.
    """
    with _acquired(folder / JOB_LOCK):
        with _acquired(folder / LOCK):  # the run may have been resumed by itself, or its sweep killed just now
            pass
        yield


def _acquired(path: Path) -> AbstractContextManager[object]:
    """Return an acquired lock, which the context releases; a message is logged while another process holds it."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire(timeout=_PROBE_SECONDS)
    except Timeout:
        log.info("%s: another process runs it; waiting for its end", path.parent.name)
        return lock.acquire()
    except OSError as error:
        raise cannot_write(path.parent, error) from error


def _in_fresh_process(folder: Path, place: str) -> int:
    with start_job(folder, place=place) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            end_with_us(process)
            raise


def start_job(folder: Path, output: BinaryIO | None = None, place: str = "") -> subprocess.Popen[bytes]:
    """Run `folder`/resolved.yaml in a process that ends when this one does; `output` gets what it prints.

    `place` is the job's place in a sweep, which it shows before its bars.

    The job watches its stdin, whose other end closes when this process ends, even by SIGKILL.
    """
    errors = None if output is None else subprocess.STDOUT
    environment = os.environ | {JOB: place.removesuffix(", ")}
    return subprocess.Popen(job_command(folder), stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment)


def job_command(folder: Path) -> list[str]:
    """Return the command of a job.

    With -P Python does not search the working directory first, so a file `tasks.py` there replaces no package.
    """
    return [sys.executable, "-P", "-m", "runner.experiment.job", str(folder)]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and wait; kill it if it does not."""
    process.terminate()
    try:
        process.wait(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_us(process: subprocess.Popen[bytes]) -> None:
    """Pass a request to stop on to a job, and wait for it; a second request, or a long wait, ends the job at once."""
    process.send_signal(PASSED_ON)
    with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
        process.wait(timeout=PATIENCE_SECONDS)
    if process.poll() is None:
        end(process)
