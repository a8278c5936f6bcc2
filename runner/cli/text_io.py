"""Text that a command reads and writes: a file, or standard input and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.common.errors import HydromelError
from runner.common.files import cannot_write

STDIO = Path("-")


@contextmanager
def reading(path: Path, flag: str = "--input") -> Iterator[BinaryIO]:
    """Open the file that `flag` names. Raises HydromelError if it cannot be opened."""
    if path == STDIO:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise HydromelError(f"{flag} {path}: cannot be read ({error.strerror})") from error
    with file:
        yield file


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it is replaced as a whole at the end, and kept unchanged if an error occurs."""
    if path == STDIO:
        with _stdout() as file:
            yield file
        return
    try:
        if path.exists() and not path.is_file():  # a device or a named pipe
            with path.open("wb") as file:
                yield file
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it exits
        if isinstance(error, BrokenPipeError):
            raise
        raise cannot_write(Path("stdout"), error) from error
