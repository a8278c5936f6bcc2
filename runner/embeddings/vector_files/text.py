"""Vectors as text: a line is a word and its numbers. GloVe's files begin with the first word; those of word2vec and
fastText (.vec) with a line of two numbers, how many words and how many numbers a word.

Lines are parted in blocks of bytes, by where fields end, and numbers are parsed for wanted words alone: the cost of a
line that is not wanted is that of finding its word. The last D fields are the numbers, so that words may hold spaces
(as in GloVe 840B); only ASCII's white space parts fields, so that they may be that of Unicode.
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
from runner.embeddings.vector_files.binary_reader import mapped
from runner.embeddings.vector_files.index import WordIndex
from runner.embeddings.vector_files.table import Table, Wanted

_BLOCK_BYTES = 2**18  # small enough to stay in a core's cache
_LINES_AT_ONCE = 512
_WHITE = b" \t\n\v\f\r"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?|nan)", re.I)
_DECIMAL = re.compile(rb"[-+]?\d*\.\d+(e[-+]?\d+)?", re.I)


@dataclass(frozen=True)
class TextFormat:
    """A text of vectors.

    Attributes:
        name: of the format.
        size: D, numbers a word.
        words_in_header: how many words the file says that it has, or None.
        skip: bytes before the first word.
    """

    name: str
    size: int
    words_in_header: int | None
    skip: int

    @property
    def first_line(self) -> int:
        """The number of the line of the first word."""
        return 1 if self.words_in_header is None else 2


def text_format(path: Path, head: bytes) -> TextFormat:
    """What the beginning of a file says.

    Raises:
        HydromelError: it is no text of vectors.
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
            f"{path}:1: '{shown}' is no word with its numbers; use GloVe or word2vec text, word2vec binary, "
            "fastText .vec or .bin"
        )
    return TextFormat("GloVe text", numbers, None, mark)


def header_of(line: bytes) -> tuple[int, int] | None:
    """(words, numbers a word) of a line that says so."""
    fields = line.split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and all(field.isdigit() for field in fields) else None


def read_text(path: Path, layout: TextFormat, places: dict[bytes, int]) -> tuple[Table, IntArray, int]:
    """Table (R, D), the row of each word of `places`, by its place (-1: none), and how many words the file has.

    `places` numbers the words from 0.

    Raises:
        HydromelError: a line with too few or too many numbers, a word that is there twice, a number that is none or not
            finite, or fewer words than the header says.
    """
    wanted, count = Wanted(path, list(places), layout.size, "line"), 0
    for lines in _all_lines(path, layout):
        keys = np.array([places.get(word, -1) for word in lines.words()], dtype=np.int64)
        some = np.flatnonzero(keys >= 0)
        wanted.add(keys[some], lines.numbers[some], lines.vectors(some))
        count += len(keys)
    if layout.words_in_header not in (None, count):
        raise HydromelError(f"{path}:1: the first line says {layout.words_in_header:,} words, the file has {count:,}")
    return wanted.table, wanted.row_of_word, count


def index_text(path: Path, layout: TextFormat) -> WordIndex:
    """Where the words of the file stand."""
    pieces = ((lines.words(), lines.numbers, lines.starts) for lines in _all_lines(path, layout))
    return WordIndex(mapped(path), pieces, _WHITE)


def read_text_at(path: Path, layout: TextFormat, words: list[bytes], index: WordIndex) -> tuple[Table, IntArray]:
    """Table (R, D), and the row of each of the words (-1: none).

    Raises:
        HydromelError: as `read_text`, of the lines of these words.
    """
    wanted = Wanted(path, words, layout.size, "line")
    keys, numbers, starts = index.find(words)
    for begin in range(0, len(keys), _LINES_AT_ONCE):
        some = slice(begin, begin + _LINES_AT_ONCE)
        block = b"".join(_line_at(index.data, start) for start in starts[some].tolist())
        lines = _Lines(path, block, 0, numbers[some], layout)
        wanted.add(keys[some], lines.numbers, lines.vectors(np.arange(len(lines.numbers))))
    return wanted.table, wanted.row_of_word


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
    """Blocks that end with a line; the last line may lack its end."""
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
    """The lines of a block, parted into words and numbers.

    Args:
        block: bytes of whole lines.
        at: the byte of the file at which they begin.
        numbers: of the lines.
    """

    def __init__(self, path: Path, block: bytes, at: int, numbers: IntArray, layout: TextFormat) -> None:
        self.path, self.layout, self._block = path, layout, block
        data = np.frombuffer(block, dtype=np.uint8)
        space = (data == ord(" ")) | (data - 9 < 5)  # tab to carriage return; bytes wrap around
        field_ends = np.flatnonzero(space[1:] & ~space[:-1]) + 1
        line_ends = np.flatnonzero(data == ord("\n"))
        up_to = np.searchsorted(field_ends, line_ends, side="right")
        n_fields = np.diff(up_to, prepend=0)
        full = np.flatnonzero(n_fields)  # lines of nothing but spaces are none
        starts = np.concatenate(([0], line_ends[:-1] + 1))[full]
        n_fields, self.numbers = n_fields[full], numbers[full]
        word_ends = field_ends[np.maximum(up_to[full] - layout.size - 1, 0)]
        nameless = (n_fields == layout.size) & space[starts]  # the word is a space, or nothing
        self._check(starts, word_ends, n_fields, nameless)
        self.starts = at + starts  # in the file
        self._begins, self._ends = starts, np.where(nameless, starts, word_ends)  # of words

    def words(self) -> list[bytes]:
        """As bytes: a word that is no UTF-8 harms no other."""
        spans = zip(self._begins.tolist(), self._ends.tolist(), strict=True)
        return [self._block[begin:end] for begin, end in spans]

    def vectors(self, chosen: npt.NDArray[np.intp]) -> Table:
        """(k, D) the numbers of the chosen lines."""
        bounds = np.empty(2 * len(self._begins) + 1, dtype=np.int32)  # word, numbers, word, numbers, ...
        bounds[:-1:2], bounds[1::2], bounds[-1] = self._begins, self._ends, len(self._block)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self._block)]
        pieces = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers).take(pa.array(2 * chosen + 1))
        try:
            text = pc.ascii_trim_whitespace(pieces.cast(pa.string()))
            values: Table = pc.cast(pc.ascii_split_whitespace(text).flatten(), pa.float32()).to_numpy()
            return values.reshape(len(chosen), self.layout.size)
        except (pa.ArrowInvalid, ValueError) as error:
            raise self._no_number(pieces.to_pylist(), chosen) from error

    def _check(
        self, starts: IntArray, word_ends: IntArray, n_fields: IntArray, nameless: npt.NDArray[np.bool_]
    ) -> None:
        """Too few fields; or too many, where what lies between word and numbers looks like numbers too."""
        size = self.layout.size
        short = (n_fields <= size) & ~nameless
        if short.any():
            at = int(short.argmax())
            raise self._wrong_size(at, int(n_fields[at]) - 1)
        for at in np.flatnonzero(n_fields > size + 1).tolist():  # a few dozen of 2 million lines in GloVe 840B
            between = self._block[starts[at] : word_ends[at]].split()[1:]
            if all(_DECIMAL.fullmatch(field) for field in between):
                raise self._wrong_size(at, int(n_fields[at]) - 1)

    def _wrong_size(self, at: int, got: int) -> HydromelError:
        said = "line 1 has" if self.layout.words_in_header is None else "the first line says"
        return HydromelError(f"{self.path}:{self.numbers[at]}: {got} numbers; {said} {self.layout.size}")

    def _no_number(self, pieces: list[bytes], chosen: npt.NDArray[np.intp]) -> HydromelError:
        for piece, at in zip(pieces, chosen, strict=True):
            for field in piece.split():
                if not is_number(field):
                    shown = field.decode(errors="replace")
                    return HydromelError(f"{self.path}:{self.numbers[at]}: '{shown}' is no number")
        return HydromelError(
            f"{self.path}: numbers cannot be read between lines {self.numbers[0]} and {self.numbers[-1]}"
        )


def is_number(field: bytes) -> bool:
    """Whether Arrow reads it as one."""
    return _NUMBER.fullmatch(field) is not None
