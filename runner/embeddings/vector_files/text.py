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
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.embeddings.vector_files.binary_reader import map_file
from runner.embeddings.vector_files.index import WordIndex
from runner.embeddings.vector_files.table import Table, TableBuilder

_BLOCK_BYTES = 2**18  # fits into a core's cache
_CHUNK_LINES = 512
_WHITE = b" \t\n\v\f\r"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?|nan)", re.I)
_DECIMAL = re.compile(rb"[-+]?\d*\.\d+(e[-+]?\d+)?", re.I)


@dataclass(frozen=True)
class TextFormat:
    """The layout of a text file of vectors.

    Attributes:
        name: name of the format.
        size: D, the vector size.
        words_in_header: number of words according to the header, or None without a header.
        skip: number of bytes before the first word.
    """

    name: str
    size: int
    words_in_header: int | None
    skip: int

    @property
    def first_line(self) -> int:
        """The 1-based line of the first word."""
        return 1 if self.words_in_header is None else 2


def text_format(path: Path, head: bytes) -> TextFormat:
    """Return the layout of a file from its first bytes.

    Raises:
        HydromelError: it is not a text file of vectors.
    """
    mark = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
    first = head[mark:].partition(b"\n")[0]
    if (header := header_of(first)) is not None:
        return TextFormat("word2vec text", header[1], header[0], mark + len(first) + 1)
    fields = first.split()
    numbers = next((place for place, field in enumerate(reversed(fields)) if not is_number(field)), len(fields) - 1)
    if numbers < 1:
        shown = first[:40].decode(errors="replace").strip()
        raise HydromelError(
            f"{path}:1: '{shown}' is not a word followed by numbers; use GloVe or word2vec text, word2vec binary, "
            "fastText .vec or .bin"
        )
    return TextFormat("GloVe text", numbers, None, mark)


def header_of(line: bytes) -> tuple[int, int] | None:
    """Return (number of words, vector size) if the line is a header, else None."""
    fields = line.split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and all(field.isdigit() for field in fields) else None


def read_text(path: Path, layout: TextFormat, places: dict[bytes, int]) -> tuple[Table, IntArray, int]:
    """Return the table (R, D), the row of each wanted word (-1: none), and the number of words in the file.

    Args:
        path: path of the file.
        layout: its layout.
        places: wanted word -> its index, from 0.

    Raises:
        HydromelError: a line with too few or too many numbers, a duplicate word, an invalid or infinite number, or a
            number of words that differs from the header's.
    """
    builder, count = TableBuilder(path, list(places), layout.size, "line"), 0
    for lines in _all_lines(path, layout):
        keys = np.array([places.get(word, -1) for word in lines.words()], dtype=np.int64)
        chosen = np.flatnonzero(keys >= 0)
        builder.add(keys[chosen], lines.numbers[chosen], lines.vectors(chosen))
        count += len(keys)
    if layout.words_in_header not in (None, count):
        raise HydromelError(
            f"{path}:1: the first line says {layout.words_in_header:,} words, but the file has {count:,}; the file is "
            "truncated or its first line is wrong"
        )
    return builder.table, builder.row_of_word, count


def index_text(path: Path, layout: TextFormat) -> WordIndex:
    """Return an index of the words of the file."""
    pieces = ((lines.words(), lines.numbers, lines.starts) for lines in _all_lines(path, layout))
    return WordIndex(map_file(path), pieces, _WHITE)


def read_text_at(path: Path, layout: TextFormat, words: list[bytes], index: WordIndex) -> tuple[Table, IntArray]:
    """Return the table (R, D), and the row of each of the words (-1: none), using an index.

    Raises:
        HydromelError: as for `read_text`, but only for the lines of these words.
    """
    builder = TableBuilder(path, words, layout.size, "line")
    keys, numbers, starts = index.find(words)
    for first in range(0, len(keys), _CHUNK_LINES):
        chunk = slice(first, first + _CHUNK_LINES)
        block = b"".join(_line_at(index.data, start) for start in starts[chunk].tolist())
        lines = _Lines(path, block, 0, numbers[chunk], layout)
        builder.add(keys[chunk], lines.numbers, lines.vectors(np.arange(len(lines.numbers))))
    return builder.table, builder.row_of_word


def _line_at(data: mmap.mmap, start: int) -> bytes:
    end = data.find(b"\n", start)
    return data[start : len(data) if end < 0 else end] + b"\n"


def _all_lines(path: Path, layout: TextFormat) -> Iterator[_Lines]:
    line, at = layout.first_line, layout.skip
    with path.open("rb") as file:
        file.seek(layout.skip)
        for block in _whole_lines(file):
            count = block.count(b"\n")
            yield _Lines(path, block, at, np.arange(line, line + count), layout)
            line, at = line + count, at + len(block)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield blocks of whole lines; a missing line end of the last line is added."""
    rest = b""
    while chunk := file.read(_BLOCK_BYTES):
        body, end, rest_of_chunk = chunk.rpartition(b"\n")
        if end:
            yield rest + body + end
            rest = rest_of_chunk
        else:
            rest += chunk
    if rest:
        yield rest + b"\n"


class _Lines:
    """The lines of a block, split into words and numbers.

    Args:
        path: path of the file, for messages.
        block: bytes of whole lines.
        at: byte offset of the block in the file.
        numbers: 1-based numbers of the lines.
        layout: layout of the file.
    """

    def __init__(self, path: Path, block: bytes, at: int, numbers: IntArray, layout: TextFormat) -> None:
        self.path, self.layout, self._block = path, layout, block
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
        word_ends = field_ends[np.maximum(up_to[full] - layout.size - 1, 0)]
        nameless = (n_fields == layout.size) & space[starts]  # the word is white space or empty
        self._check(starts, word_ends, n_fields, nameless)
        self.starts = at + starts  # offsets in the file
        self._word_starts, self._word_ends = starts, np.where(nameless, starts, word_ends)  # offsets in the block

    def words(self) -> list[bytes]:
        """Return the words as bytes, so that a word in invalid UTF-8 does not affect the others."""
        spans = zip(self._word_starts.tolist(), self._word_ends.tolist(), strict=True)
        return [self._block[start:end] for start, end in spans]

    def vectors(self, chosen: npt.NDArray[np.intp]) -> Table:
        """Return the numbers (k, D) of the chosen lines."""
        # View the block as an Arrow array of word, numbers, word, numbers, ...: the odd entries are the numbers.
        bounds = np.empty(2 * len(self._word_starts) + 1, dtype=np.int32)
        bounds[:-1:2], bounds[1::2], bounds[-1] = self._word_starts, self._word_ends, len(self._block)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self._block)]
        pieces = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers).take(pa.array(2 * chosen + 1))
        try:
            text = pc.ascii_trim_whitespace(pieces.cast(pa.string()))
            values: Table = pc.cast(pc.ascii_split_whitespace(text).flatten(), pa.float32()).to_numpy()
            return values.reshape(len(chosen), self.layout.size)
        except (pa.ArrowInvalid, ValueError) as error:
            raise self._invalid_number(pieces.to_pylist(), chosen) from error

    def _check(
        self, starts: IntArray, word_ends: IntArray, n_fields: IntArray, nameless: npt.NDArray[np.bool_]
    ) -> None:
        """Raise an error for a line with too few fields, or with more numbers than D.

        A word may contain spaces, so additional fields are an error only if all of them are decimal numbers.
        """
        size = self.layout.size
        short = (n_fields <= size) & ~nameless
        if short.any():
            at = int(short.argmax())
            raise self._wrong_size(at, int(n_fields[at]) - 1)
        for at in np.flatnonzero(n_fields > size + 1).tolist():  # few: some dozens of 2 million lines in GloVe 840B
            between = self._block[starts[at] : word_ends[at]].split()[1:]
            if all(_DECIMAL.fullmatch(field) for field in between):
                raise self._wrong_size(at, int(n_fields[at]) - 1)

    def _wrong_size(self, at: int, got: int) -> HydromelError:
        source = "line 1 has" if self.layout.words_in_header is None else "the first line says"
        return HydromelError(f"{self.path}:{self.numbers[at]}: {got} numbers; {source} {self.layout.size}")

    def _invalid_number(self, pieces: list[bytes], chosen: npt.NDArray[np.intp]) -> HydromelError:
        for piece, at in zip(pieces, chosen, strict=True):
            for field in piece.split():
                if not is_number(field):
                    shown = field.decode(errors="replace")
                    return HydromelError(f"{self.path}:{self.numbers[at]}: '{shown}' is not a number")
        return HydromelError(f"{self.path}: invalid numbers between lines {self.numbers[0]} and {self.numbers[-1]}")


def is_number(field: bytes) -> bool:
    """Return True if Arrow parses the field as a number."""
    return _NUMBER.fullmatch(field) is not None
