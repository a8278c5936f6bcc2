"""Text in pieces: a file or a pipe is read some lines at a time, so that memory does not grow with its length."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from runner.common.errors import HydromelError

LONGEST_LINE_BYTES = 2**24  # a file without line ends must not fill the memory
MOST_CHARACTERS = 2**26  # of lines that belong together: a file that lacks its blank lines must not, either
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Passage:
    """Some lines of a text that are read at a time.

    Attributes:
        name: of the file.
        first: number of the first line, from 1.
        lines: without line ends.
    """

    name: str
    first: int
    lines: list[str]

    def at(self, place: int) -> str:
        """`file:line` of the line at this place, from 0."""
        return f"{self.name}:{self.first + place}"


def passages(lines: Iterator[str], name: str, characters: int, may_end: Callable[[str], bool]) -> Iterator[Passage]:
    """All lines, in passages that hold so many characters, or little more.

    Args:
        name: of the file.
        may_end: whether a passage may end behind this line.

    Raises:
        HydromelError: no line at which a passage may end for `MOST_CHARACTERS`.
    """
    kept: list[str] = []
    first, held = 1, 0
    for line in lines:
        kept.append(line)
        held += len(line) + 1
        if held >= characters and may_end(line):
            yield Passage(name, first, kept)
            first, held, kept = first + len(kept), 0, []
        elif held > MOST_CHARACTERS + characters:
            raise HydromelError(f"{name}:{first}: no blank line for {held:,} characters from here; is --format right?")
    if kept:
        yield Passage(name, first, kept)


def read_lines(file: BinaryIO, name: str, encoding: str) -> Iterator[str]:
    """The lines of a text, plain or gzipped (told by content), without line ends (LF or CRLF) or a byte order mark.

    Raises:
        HydromelError: a line that is too long or not of that encoding; damaged gzip.
    """
    try:
        for number, line in enumerate(_raw_lines(_unzipped(file)), start=1):
            if len(line) > LONGEST_LINE_BYTES:
                raise HydromelError(f"{name}:{number}: a line of more than {LONGEST_LINE_BYTES:,} bytes")
            text = _decoded(line, encoding, f"{name}:{number}")
            yield text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
    except (OSError, EOFError, zlib.error) as error:
        raise HydromelError(f"{name}: cannot be read ({error})") from error


def check_encoding(encoding: str) -> None:
    """Let pass the encodings in which lines can be told before they are decoded.

    Raises:
        HydromelError: any other, or an unknown one.
    """
    with suppress(LookupError):
        codecs.lookup(encoding)
        if "\n".encode(encoding) == b"\n":
            return
    raise HydromelError(f"--encoding {encoding}: use one with line ends of one byte, such as utf-8, iso-8859-1, cp1252")


def _unzipped(file: BinaryIO) -> BinaryIO:
    head = file.peek(2)[:2] if hasattr(file, "peek") else b""
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if head == _GZIP_MAGIC else file


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(LONGEST_LINE_BYTES + 1), b"")


def _decoded(line: bytes, encoding: str, at: str) -> str:
    try:
        return line.decode(encoding).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise HydromelError(
            f"{at}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not {encoding}: {error.reason}; "
            "name the text's own encoding with --encoding"
        ) from error
