"""Reading a file or a pipe a few lines at a time, so that memory use does not depend on its length."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from runner.common.errors import HydromelError
from runner.common.types import is_encoding

# Limits for malformed input: a file without line ends, or without blank lines between rows, must not fill the memory.
LONGEST_LINE_BYTES = 2**24
MOST_CHARACTERS = 2**26  # limit for lines that belong together
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Passage:
    """A block of lines that are processed together: whole rows."""

    name: str  # name of the file, for messages
    first: int  # 1-based number of the first line
    lines: list[str]  # without line ends

    def at(self, place: int) -> str:
        """Return `file:line` of the line at this index, from 0."""
        return f"{self.name}:{self.first + place}"


def passages(groups: Iterable[list[str]], name: str, characters: int) -> Iterator[Passage]:
    """Yield all lines in passages, which end after `characters`, with the group of lines that reaches them."""
    block: list[str] = []
    first, n_characters = 1, 0
    for group in groups:
        block += group
        n_characters += sum(map(len, group)) + len(group)
        if n_characters >= characters:
            yield Passage(name, first, block)
            first, n_characters, block = first + len(block), 0, []
    if block:
        yield Passage(name, first, block)


def single(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield each line as a group of its own."""
    return ([line] for line in lines)


def grouped(lines: Iterable[str], name: str, is_end: Callable[[str], bool]) -> Iterator[list[str]]:
    """Yield groups of lines, each up to and including a line that `is_end`.

    Raises:
        HydromelError: a group has more than `MOST_CHARACTERS`.
    """
    group: list[str] = []
    n_characters, n_lines = 0, 0
    for line in lines:
        group.append(line)
        n_characters += len(line) + 1
        if is_end(line):
            yield group
            n_lines += len(group)
            group, n_characters = [], 0
        elif n_characters > MOST_CHARACTERS:
            raise HydromelError(
                f"{name}:{n_lines + 1}: no blank line in the {n_characters:,} characters from here; check --format, "
                "or separate rows by blank lines"
            )
    if group:
        yield group


def read_lines(file: BinaryIO, name: str, encoding: str) -> Iterator[str]:
    """Yield the lines of a text, plain or gzipped, without line ends and without a byte order mark.

    Line ends are LF, CRLF or CR CR LF, or CR in a text that has none of these.
    Gzip is detected by content. Damaged gzip, or a line that is too long or not in the encoding, is a HydromelError.
    """
    try:
        head = file.peek(2)[:2] if hasattr(file, "peek") else b""
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if head == _GZIP_MAGIC else file
        for number, line in enumerate(iter(lambda: raw.readline(LONGEST_LINE_BYTES + 1), b""), start=1):
            if len(line) > LONGEST_LINE_BYTES:
                raise HydromelError(
                    f"{name}:{number}: the line has more than {LONGEST_LINE_BYTES:,} bytes, the most allowed; split it"
                )
            text = _decoded(line, encoding, f"{name}:{number}")
            text = text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
            if number == 1 and not line.endswith(b"\n"):  # the whole text has no LF, so CR may end its lines
                yield from text.split("\r")
            else:
                yield text
    except (OSError, EOFError, zlib.error) as error:
        raise HydromelError(f"{name}: cannot be read ({error})") from error


def check_encoding(encoding: str) -> None:
    """Raise a HydromelError unless an encoding is known and its line ends, found before decoding, are single bytes."""
    if is_encoding(encoding) and "\n".encode(encoding) == b"\n":
        return
    raise HydromelError(
        f"--encoding {encoding}: use a known encoding with one-byte line ends, such as utf-8, iso-8859-1 or cp1252"
    )


def _decoded(line: bytes, encoding: str, at: str) -> str:
    try:
        text = line.decode(encoding).removesuffix("\n").rstrip("\r")
    except UnicodeDecodeError as error:
        raise HydromelError(
            f"{at}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not {encoding}: {error.reason}; "
            "set the text's encoding with --encoding"
        ) from error
    if "\0" in text:
        raise HydromelError(f"{at}: a NUL character, which no text has; convert text in UTF-16 to UTF-8")
    return text
