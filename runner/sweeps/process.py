"""The process of a job: it ends when this one does, and its folder says how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from runner.common.errors import HydromelError
from runner.common.run_schema import CONSOLE, PATIENCE_SECONDS, RUN
from runner.sweeps.slots import WHOLE, Slot
from runner.terminal.interruption import PASSED_ON, waiting
from runner.terminal.progress import JOB
from runner.tracking.run_folder import read_run

INTERRUPTED = 130  # exit code of a job
_POLL_SECONDS = 0.1
_TAIL_BYTES = 65_536  # of what a job printed
_ERROR = "error: "


def start_job(
    folder: Path, output: BinaryIO | None = None, place: str = "", slot: Slot = WHOLE
) -> subprocess.Popen[bytes]:
    """Run `folder`/resolved.yaml in a process that ends when this one does; `output` gets what it prints.

    `place` is the job's place in a sweep, which it shows before its bars.

    The job watches its stdin, whose other end closes when this process ends, even by SIGKILL.
    """
    errors = None if output is None else subprocess.STDOUT
    environment = os.environ | {JOB: place} | slot.environment()
    with waiting():  # a request that comes before the job can heed it would end it in a traceback
        return subprocess.Popen(
            job_command(folder), stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment
        )


def job_command(folder: Path) -> list[str]:
    """Return the command of a job.

    With -P Python does not search the working directory first, so a file `tasks.py` there replaces no package.
    """
    return [sys.executable, "-P", "-m", "runner.experiment.job", str(folder)]


def run_job_here(folder: Path, place: str, slot: Slot = WHOLE) -> int:
    """Run a job that writes to the console of this process, and return its exit code."""
    with start_job(folder, place=place, slot=slot) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            end_with_us(process)
            raise


def run_job_aside(
    folder: Path,
    place: str,
    slot: Slot,
    stopping: threading.Event,
    show: Callable[[str], None],
    look: Callable[[], None],
) -> int:
    """Run a job that writes to its own `console.log`, and return its exit code.

    A file outlives this process, unlike a pipe, so a job whose parent was killed still ends in order.

    Args:
        stopping: set by another thread to end the job.
        show: called with each line that the job writes.
        look: called a few times per second.

    Raises:
        KeyboardInterrupt: `stopping` was set, and the job has ended.
    """
    path = folder / CONSOLE
    with path.open("ab") as output, path.open("rb") as written, start_job(folder, output, place, slot) as process:
        written.seek(0, os.SEEK_END)
        try:
            for line in _lines(process, written, stopping, look):
                show(line.decode(errors="replace"))
        except BaseException:  # a launcher's handlers of signals raise others than KeyboardInterrupt
            end_with_us(process)
            raise
        return process.returncode


def _lines(
    process: subprocess.Popen[bytes], written: BinaryIO, stopping: threading.Event, look: Callable[[], None]
) -> Iterator[bytes]:
    rest = b""
    while True:
        over = process.poll() is not None  # checked before reading, since an ended process writes nothing more
        *lines, rest = (rest + written.read()).split(b"\n")
        yield from [*lines, rest] if over and rest else lines
        look()
        if over:
            return
        if stopping.is_set():
            raise KeyboardInterrupt
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)


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


def reason(folder: Path, code: int) -> str:
    """Return why a job did not finish, in a line, from its exit code and the records in its folder."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == INTERRUPTED:
        return "interrupted"
    lines = _last_lines(folder / CONSOLE)
    if (said := next((line for line in reversed(lines) if line.startswith(_ERROR)), None)) is not None:
        return said.removeprefix(_ERROR)
    with contextlib.suppress(HydromelError):
        if (folder / RUN).exists() and (error := read_run(folder).get("error")):
            return error
    return lines[-1] if lines else f"it ended with code {code}"


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.split("\n") if line.strip()]
