"""A job's process, and how it is ended: it is asked to, so that it keeps what it did."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_PATIENCE_SECONDS = 60.0  # for an interrupted job to keep what it did


def job_command(folder: Path) -> list[str]:
    """Return the command that runs `folder`/resolved.yaml in a process of its own.

    With -P Python does not look in the working directory first: a file `tasks.py` there replaces no package.
    """
    return [sys.executable, "-P", "-m", "runner.experiment.job", str(folder)]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and wait; one that does not is killed."""
    process.terminate()
    try:
        process.wait(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_us(process: subprocess.Popen[bytes]) -> None:
    """End a job after an interruption: a terminal sends it to the job too, a signal to this process alone does not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        end(process)
