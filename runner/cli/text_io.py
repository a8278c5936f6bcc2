"""Text that a command reads and writes: a file, or standard input and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO

from runner.common.errors import HydromelError
from runner.common.files import cannot_write, open_new
from runner.common.printable import printable

STDIO = Path("-")


def lines_of(path: Path, encoding: str, flag: str = "--input") -> tuple[str, Iterator[str]]:
    """Return the name of a text for messages, and its lines; its file is opened when the first line is read.

    Raises:
        HydromelError: an unusable encoding. The iterator raises those of `read_lines`, and for a file that cannot be
            opened.
    """
    from runner.text.formats.reader import check_encoding, read_lines

    check_encoding(encoding)
    name = "stdin" if path == STDIO else str(path)

    def lines() -> Iterator[str]:
        try:
            file = nullcontext(sys.stdin.buffer) if path == STDIO else path.open("rb")
        except OSError as error:
            raise HydromelError(f"{flag} {path}: cannot be read ({error.strerror})") from error
        with file as source:
            yield from read_lines(source, name, encoding)

    return name, lines()


def print_data(text: str, end: str = "\n") -> None:
    """Print what a model or a user wrote: unchanged in a pipe or a file, `printable` on a terminal."""
    print(printable(text) if sys.stdout.isatty() else text, end=end, flush=True)  # noqa: T201


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it is replaced as a whole at the end, and kept unchanged if an error occurs."""
    if path == STDIO:
        with stdout_errors():
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and not path.is_file():  # a device or a named pipe
            with path.open("wb") as file:
                yield file
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with BufferedWriter(open_new(temporary)) as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Turn an OSError of stdout within the context into a HydromelError; a closed pipe remains a BrokenPipeError."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it exits
        if isinstance(error, BrokenPipeError):
            raise
        raise cannot_write(Path("stdout"), error) from error
