"""The jobs of a sweep: each runs in a new process and its own folder, and is skipped if it has finished."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

from runner.common.command_line import failed
from runner.common.errors import HydromelError
from runner.common.run_schema import RESULT
from runner.config.hashes import job_hash, name_of_job
from runner.config.saved import write_config
from runner.config.schema import RunConfig
from runner.sweeps.process import end_with_us, job_command

log = logging.getLogger(__name__)


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

        Args:
            title: the job's options, for messages.

        Raises:
            KeyboardInterrupt: it was interrupted.
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
