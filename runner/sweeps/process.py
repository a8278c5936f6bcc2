"""The process of a job, and its termination by a signal, so that it keeps its records."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_PATIENCE_SECONDS = 60.0  # for an interrupted job to keep what it did


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
