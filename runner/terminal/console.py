"""Messages: Python's logging, shown on the console and kept in each run's `console.log`.

All text for a terminal passes through `printable`: messages here, tables in `runner.terminal.rich_tables`, predictions
and generated text in `runner.cli.text_io`. Nothing else prints.

Modules write to `logging.getLogger(__name__)`: progress with `info`, warnings with `warning`, errors with `error`.
Commands call `show_messages` first; programs that use these packages set up logging as they like.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from runner.common.files import cannot_write
from runner.common.printable import printable
from runner.terminal.progress import print_above, show_progress

_format_warning = warnings.formatwarning
# all messages of these loggers are shown; of others only warnings and errors
_OURS = ("runner", "tasks", "reporting", "__main__")


class _Bare(logging.Formatter):
    """A formatter of `printable` messages without a prefix or, as Python's warnings have it, a final line break."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record).rstrip("\n"))


class _Console(logging.Handler):
    """A handler that prints the bare message: warnings and errors to stderr, others to stdout."""

    needs_reader = True  # False: if nobody reads the pipe any more, nothing is printed from then on

    def emit(self, record: logging.LogRecord) -> None:
        # sys.stdout is looked up for each line: programs and tests replace it
        file = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        line = self.format(record)
        try:
            if not print_above(line, file):
                print(line, file=file, flush=True)
        except BrokenPipeError:
            if self.needs_reader:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        except OSError:  # a full disk must not end a run; the line stays buffered
            pass


class _Copy(logging.FileHandler):
    """A handler that appends the same lines to a file, each flushed, so that they survive the process."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):  # a full disk must not end a run; the console has the line
            super().handleError(record)


def _printable_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return printable(_format_warning(message, category, filename, lineno, line))


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def show_messages(bars: bool = True) -> None:
    """Show messages and bars on the console from now on; further calls change nothing. Python's own are `printable`.

    `bars`: False if other processes write to the same terminal.
    """
    if bars:
        show_progress()
    warnings.formatwarning = _printable_warning
    sys.excepthook = _print_traceback
    root = logging.getLogger()
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_shown(_Console()))
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)


def outlive_reader() -> None:
    """From now on, go on when nobody reads the console any more (`| head`): a run has its lines in `console.log`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Console):
            handler.needs_reader = False


def show_only_errors() -> None:
    """Show errors only from now on, in a process beside the one that tells how a run goes."""
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def copied_to(path: Path, before: Sequence[str] = ()) -> Iterator[None]:
    """Within the context, also append messages to `path`, including Python's warnings and a final traceback.

    `before` are messages that were shown earlier; they are written first.

    Raises:
        HydromelError: the file cannot be written.
    """
    if _is_stdout(path):
        yield
        return
    try:
        handler = _shown(_Copy(path, encoding="utf-8", errors="backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error) from error
    for message in before:
        handler.handle(logging.makeLogRecord({"msg": message}))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    except Exception:  # the interpreter prints a traceback to stderr only
        handler.handle(logging.makeLogRecord({"msg": traceback.format_exc().rstrip()}))
        raise
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # the disk may still be full, with the last lines in the buffer
            handler.close()


def _shown(handler: logging.Handler) -> logging.Handler:
    handler.setLevel(logging.INFO)
    handler.setFormatter(_Bare())
    return handler


def _is_stdout(path: Path) -> bool:
    """Return True if this process's output goes to `path` already, as that of a search's trials does."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(1))
    return False
