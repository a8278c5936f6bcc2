"""Text files in blocks of whole lines or sentences, so that memory does not depend on their sizes."""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runner.common.bounded import Readable, open_expanded
from runner.common.errors import HydromelError
from tasks.datasets.files import (
    BYTE_ORDER_MARK,
    CR_AT_END,
    MAX_BYTES,
    STDIN,
    TextFile,
    check_characters,
    check_start,
    not_decoded,
    read_text,
)

BLOCK_BYTES = 2**24  # of a file that are read at once
# Returns the last place in a text, which begins with a row, at which a block may end; 0: there is none.
BlockEnd = Callable[[str], int]
_BLANK_LINE = re.compile(r"\n[ \t\v\f\r]*\n")


def text_blocks(path: Path, encoding: str, end: BlockEnd) -> Iterator[TextFile]:
    """Yield a file in blocks, which end where `end` says. Empty lines that end the file are in the last one.

    Standard input, and a file whose line ends are CR, is a single block.

    Raises:
        HydromelError: as `read_text`; or there is no end in 2 GiB.
    """
    if path != STDIN:
        with open_expanded(path) as source:
            file = _PartlyRead(path, encoding, source)
            file.read()
            if not file.is_whole and "\n" in file.text:
                yield from _blocks(file, end)
                return
    yield read_text(path, encoding)


def _blocks(file: "_PartlyRead", end: BlockEnd) -> Iterator[TextFile]:
    head: str | None = None
    before, held = 0, file.take(end)  # what ends the file belongs to the block before it if it is only white space
    while not file.is_whole:
        file.read()
        block = file.take(end)
        if held.strip() and block.strip():
            yield TextFile(file.path, held, before, head)
            head = held.partition("\n")[0] if head is None else head
            before += held.count("\n")
            held = ""
        held += block
    if not held.strip():
        raise HydromelError(f"{file.path}: no examples; the file contains only white space")
    yield TextFile(file.path, held, before, head)


@dataclass
class _PartlyRead:
    """A file that is read from its start; its text is taken in blocks."""

    path: Path
    encoding: str
    source: Readable
    text: str = ""  # read, but not taken
    is_whole: bool = False  # nothing is left to read
    _lines: int = 0  # taken so far
    _bytes: int = 0  # decoded so far
    _next: bytes | None = None  # read, but not decoded
    _decoder: codecs.IncrementalDecoder = field(init=False)

    def read(self) -> None:
        """Read further text."""
        if self._next is None:
            self._next = self.source.read(BLOCK_BYTES)
            check_start(self.path, self._next, self.encoding)
            self._decoder = codecs.getincrementaldecoder(self.encoding)()
        # A row that is longer than a block is read in ever larger pieces, so that its text is not searched often.
        data, self._next = self._next, self.source.read(max(BLOCK_BYTES, len(self.text)))
        self.is_whole = not self._next
        try:
            text = self._decoder.decode(data, self.is_whole)
        except UnicodeError as error:
            raise self._not_decoded(data, error) from error
        self.text += text if self._bytes else text.removeprefix(BYTE_ORDER_MARK)
        self._bytes += len(data)
        if len(self.text) > MAX_BYTES:
            raise HydromelError(f"{self.path}:{self._lines + 1}: more than {MAX_BYTES:,} characters in one row")

    def take(self, end: BlockEnd) -> str:
        """Return the text up to the last end, or all text of a file that is wholly read; line ends become LF."""
        text, rest = self.text, ""
        if not self.is_whole:
            text = text.rstrip("\r")  # an LF may follow
            rest = self.text[len(text) :]
        text = CR_AT_END.sub(r"\1", text) if "\r" in text else text
        if not self.is_whole:
            place = end(text)
            text, rest = text[:place], text[place:] + rest
        check_characters(self.path, text, self._lines)
        self.text = rest
        self._lines += text.count("\n")
        return text

    def _not_decoded(self, data: bytes, error: UnicodeError) -> HydromelError:
        kept = len(error.object) - len(data) if isinstance(error, UnicodeDecodeError) else 0  # from the bytes before
        data = error.object if isinstance(error, UnicodeDecodeError) else data
        return not_decoded(self.path, self.encoding, data, error, self.text, self._lines, self._bytes - kept)


def last_line(text: str) -> int:
    """Return the end of the last line that is whole and not empty; 0: there is none."""
    whole = text[: text.rfind("\n") + 1].rstrip("\n ")
    return text.find("\n", len(whole)) + 1 if whole else 0


def last_blank_line(text: str) -> int:
    """Return the end of the last blank line, which ends a sentence; 0: there is none."""
    size = 2**12
    while True:
        ends = [match.end() for match in _BLANK_LINE.finditer(text, max(0, len(text) - size))]
        if ends or size >= len(text):
            return ends[-1] if ends else 0
        size *= 16
