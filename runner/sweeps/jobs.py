"""The jobs of a sweep: each runs in a new process and its own folder, and is skipped if it has finished."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from runner.common.command_line import failed
from runner.common.errors import HydromelError
from runner.common.run_schema import RESULT
from runner.config.hashes import job_hash, name_of_job
from runner.config.saved import write_config
from runner.config.schema import RunConfig

log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 60.0  # for an interrupted job to keep what it did


class SweepJobs:
    """The jobs of this command that ran in this process, and how they ended."""

    def __init__(self) -> None:
        self.code = 0
        self.failed: list[str] = []
        self.done = 0
        self.sweep: Path | None = None
        self.search: Callable[[], int] | None = None  # begun when Hydra is done: a search composes configs of its own

    def run(self, config: RunConfig, title: str) -> bool:
        """Run one job below `sweep` unless it is finished, and return whether it is; a failure is recorded, not raised.

        `title` are the job's options, for messages. Raises KeyboardInterrupt if it was interrupted.
        """
        assert self.sweep is not None
        name = folder_name(config)
        folder = self.sweep / name
        if (folder / RESULT).exists():
            log.info("%s: finished earlier, skipped", name)
            self.done += 1
            return True
        log.info("--- %s: %s", name, title)
        try:
            write_config(config, folder)
        except HydromelError as error:
            return self.note_failure(title, failed(str(error)))
        code = _in_fresh_process(folder)
        if code == 130:
            raise KeyboardInterrupt
        if code != 0:
            return self.note_failure(name, code)
        self.done += 1
        return True

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


def folder_name(config: RunConfig) -> str:
    """Return the name of a job's folder: the options that most sweeps vary, then a hash of all options."""
    return f"{name_of_job(config.resolved)}-{job_hash(config.resolved)[:8]}"


def _in_fresh_process(folder: Path) -> int:
    process = subprocess.Popen(job_command(folder))
    try:
        return process.wait()
    except KeyboardInterrupt:
        end_with_us(process)
        raise


def job_command(folder: Path) -> list[str]:
    """Return the command that runs `folder`/resolved.yaml in a separate process.

    With -P Python does not search the working directory first, so a file `tasks.py` there replaces no package.
    """
    return [sys.executable, "-P", "-m", "runner.experiment.job", str(folder)]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and wait; kill it if it does not."""
    process.terminate()
    try:
        process.wait(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_us(process: subprocess.Popen[bytes]) -> None:
    """End a job after an interruption; a terminal interrupts the job as well, a signal to this process does not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        end(process)
