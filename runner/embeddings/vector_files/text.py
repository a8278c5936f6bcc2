"""Vectors as text: each line is a word and its numbers.

GloVe files start with the first word. word2vec and fastText (.vec) files start with a line of two numbers, the number
of words and the vector size D.

Blocks of bytes are split into lines by the positions of field ends, and numbers are parsed only for wanted words, so a
line that is not wanted costs only finding its word. The last D fields of a line are the numbers, so words may contain
spaces (as in GloVe 840B). Only ASCII white space separates fields, so words may contain Unicode white space.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError
from runner.common.types import UnicodeForm
from runner.embeddings.vector_files.table import IndexedFile, Piece, Table

_BLOCK_BYTES = 2**18  # fits into a core's cache
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?|nan)", re.I)
_DECIMAL = re.compile(rb"[-+]?\d*\.\d+(e[-+]?\d+)?", re.I)


class TextFile(IndexedFile):
    """A text file of vectors."""

    unit = "line"

    @classmethod
    def open(cls, path: Path, head: bytes, unicode: UnicodeForm) -> TextFile:
        """Return the file whose first bytes are `head`; raise a HydromelError if it is not a text file of vectors."""
        mark = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
        first_line = head[mark:].partition(b"\n")[0]
        if (header := header_of(first_line)) is not None:
            return cls(path, "word2vec text", header[1], header[0], mark + len(first_line) + 1, unicode)
        fields = first_line.split()
        numbers = next((place for place, field in enumerate(reversed(fields)) if not is_number(field)), len(fields) - 1)
        if numbers < 1:
            shown = first_line[:40].decode(errors="replace").strip()
            raise HydromelError(
                f"{path}:1: '{shown}' is not a word followed by numbers; use GloVe or word2vec text, word2vec binary, "
                "fastText .vec or .bin"
            )
        return cls(path, "GloVe text", numbers, None, mark, unicode)

    def pieces(self, data: mmap.mmap) -> Iterator[Piece]:
        number, at, count = 1 if self.words_in_header is None else 2, self.skip, 0
        with self.path.open("rb") as file:
            file.seek(self.skip)
            for block in _whole_lines(file):
                lines = _Lines(self, block, np.arange(number, number + block.count(b"\n")))
                yield lines.words(), lines.numbers, at + lines.starts
                number, at, count = number + block.count(b"\n"), at + len(block), count + len(lines.starts)
        if self.words_in_header not in (None, count):
            raise HydromelError(
                f"{self.path}:1: the first line says {self.words_in_header:,} words, but the file has {count:,}; the "
                "file is truncated or its first line is wrong"
            )

    def vectors(self, data: mmap.mmap, numbers: IntArray, starts: IntArray, ends: IntArray) -> Table:
        return _Lines(self, b"".join(_line_at(data, start) for start in starts.tolist()), numbers).vectors()


def header_of(line: bytes) -> tuple[int, int] | None:
    """Return (number of words, vector size) if the line is a header, else None."""
    fields = line.split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and all(field.isdigit() for field in fields) else None


def _line_at(data: mmap.mmap, start: int) -> bytes:
    end = data.find(b"\n", start)
    return data[start : len(data) if end < 0 else end] + b"\n"


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield blocks of whole lines; a missing line end of the last line is added."""
    while block := file.read(_BLOCK_BYTES) + file.readline():
        yield block if block.endswith(b"\n") else block + b"\n"


class _Lines:
    """The lines of a block, split into words and numbers.

    Args:
        block: bytes of whole lines.
        numbers: 1-based numbers of the lines.

    Attributes:
        numbers: those of the lines that are not blank.
        starts: byte offsets in the block at which these start.
    """

    def __init__(self, file: TextFile, block: bytes, numbers: IntArray) -> None:
        self._file, self._block = file, block
        data = np.frombuffer(block, dtype=np.uint8)
        # The second term is true for tab to carriage return (9 to 13): smaller bytes wrap around to large ones.
        space = (data == ord(" ")) | (data - 9 < 5)
        field_ends = np.flatnonzero(space[1:] & ~space[:-1]) + 1
        line_ends = np.flatnonzero(data == ord("\n"))
        up_to = np.searchsorted(field_ends, line_ends, side="right")
        n_fields = np.diff(up_to, prepend=0)
        full = np.flatnonzero(n_fields)  # ignore blank lines
        starts = np.concatenate(([0], line_ends[:-1] + 1))[full]
        n_fields, self.numbers = n_fields[full], numbers[full]
        # The last D fields are the numbers, so the word ends with the field before them, whatever spaces it contains.
        word_ends = field_ends[np.maximum(up_to[full] - file.size - 1, 0)]
        nameless = (n_fields == file.size) & space[starts]  # the word is white space or empty
        self._check(starts, word_ends, n_fields, nameless)
        self.starts, self._word_ends = starts, np.where(nameless, starts, word_ends)

    def words(self) -> list[bytes]:
        """Return the words as bytes, so that a word in invalid UTF-8 does not affect the others."""
        spans = zip(self.starts.tolist(), self._word_ends.tolist(), strict=True)
        return [self._block[start:end] for start, end in spans]

    def vectors(self) -> Table:
        """Return the numbers (k, D) of the lines."""
        # View the block as an Arrow array of word, numbers, word, numbers, ...: the odd entries are the numbers.
        bounds = np.empty(2 * len(self.starts) + 1, dtype=np.int32)
        bounds[:-1:2], bounds[1::2], bounds[-1] = self.starts, self._word_ends, len(self._block)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self._block)]
        pieces = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)[1::2]
        try:
            text = pc.ascii_trim_whitespace(pieces.cast(pa.string()))
            values: Table = pc.cast(pc.ascii_split_whitespace(text).flatten(), pa.float32()).to_numpy()
            return values.reshape(-1, self._file.size)
        except (pa.ArrowInvalid, ValueError) as error:
            raise self._invalid_number(pieces.to_pylist()) from error

    def _check(self, starts: IntArray, word_ends: IntArray, n_fields: IntArray, nameless: BoolArray) -> None:
        """Raise an error for a line with too few fields, or with more numbers than D.

        A word may contain spaces, so additional fields are an error only if all of them are decimal numbers.
        """
        size = self._file.size
        for at in np.flatnonzero((n_fields != size + 1) & ~nameless).tolist():  # few: dozens of 2 million in GloVe 840B
            between = self._block[starts[at] : word_ends[at]].split()[1:]
            if n_fields[at] <= size or all(_DECIMAL.fullmatch(field) for field in between):
                source = "line 1 has" if self._file.words_in_header is None else "the first line says"
                raise HydromelError(
                    f"{self._file.path}:{self.numbers[at]}: {n_fields[at] - 1} numbers; {source} {size}"
                )

    def _invalid_number(self, pieces: list[bytes]) -> HydromelError:
        for piece, number in zip(pieces, self.numbers, strict=True):
            for field in piece.split():
                if not is_number(field):
                    shown = field.decode(errors="replace")
                    return HydromelError(f"{self._file.path}:{number}: '{shown}' is not a number")
        return HydromelError(
            f"{self._file.path}: invalid numbers between lines {self.numbers[0]} and {self.numbers[-1]}"
        )


def is_number(field: bytes) -> bool:
    """Return True if Arrow parses the field as a number."""
    return _NUMBER.fullmatch(field) is not None
