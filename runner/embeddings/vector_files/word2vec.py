"""word2vec's binary format: a line `words size`, then for each word its bytes, a space, and float32 numbers, little
endian; word2vec's own program writes a line end after each, others do not.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.embeddings.vector_files.binary_reader import mapped
from runner.embeddings.vector_files.index import Piece, WordIndex
from runner.embeddings.vector_files.table import Table, Wanted
from runner.embeddings.vector_files.text import header_of

_OF_NUMBERS = frozenset(b"0123456789+-.eEnaifNAIF \t\r")
_ROWS_AT_ONCE = 512
_WORDS_AT_ONCE = 2**16
_LINE_END = ord("\n")


@dataclass(frozen=True)
class Word2vecFormat:
    """A binary file.

    Attributes:
        n_words: that it says it has.
        size: D.
        skip: bytes before the first word.
    """

    n_words: int
    size: int
    skip: int
    name: str = "word2vec binary"


def word2vec_format(path: Path, head: bytes) -> Word2vecFormat | None:
    """What the first line says, or None where the file has no such line, or text after it.

    Raises:
        HydromelError: a first line that speaks of no words or no numbers.
    """
    first, _, rest = head.partition(b"\n")
    header = header_of(first.removeprefix(b"\xef\xbb\xbf"))
    if header is None:
        return None
    n_words, size = header
    if not n_words or not size:
        raise HydromelError(f"{path}:1: the first line says {n_words} words of {size} numbers; both must be above 0")
    _, _, numbers = rest.lstrip().partition(b" ") if b" " in rest else rest.partition(b"\t")
    line = numbers[: 4 * size].partition(b"\n")[0]
    is_text = not numbers or (line and _OF_NUMBERS.issuperset(line))
    return None if is_text else Word2vecFormat(n_words, size, len(first) + 1)


def read_word2vec(path: Path, layout: Word2vecFormat, places: dict[bytes, int]) -> tuple[Table, IntArray, int]:
    """Table (R, D), the row of each word of `places`, by its place (-1: none), and how many words the file has.

    Raises:
        HydromelError: the file ends early or goes on after its last word, a word is there twice, or a number is not
            finite.
    """
    data = mapped(path)
    found = [
        (key, number, space + 1)
        for number, begin, space in _entries(path, data, layout)
        if (key := places.get(data[begin:space])) is not None
    ]
    columns = tuple(np.array(found, dtype=np.int64).reshape(-1, 3).T)
    return *_rows_at(path, data, layout, list(places), columns), layout.n_words


def index_word2vec(path: Path, layout: Word2vecFormat) -> WordIndex:
    """Where the words of the file stand."""
    data = mapped(path)
    entries = _entries(path, data, layout)
    return WordIndex(data, iter(lambda: _piece(data, entries), None), b" ")


def read_word2vec_at(
    path: Path, layout: Word2vecFormat, words: list[bytes], index: WordIndex
) -> tuple[Table, IntArray]:
    """Table (R, D), and the row of each of the words (-1: none).

    Raises:
        HydromelError: a word is there twice, or a number is not finite.
    """
    keys, numbers, starts = index.find(words)
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    return _rows_at(path, index.data, layout, words, (keys, numbers, starts + lengths[keys] + 1))


def _piece(data: mmap.mmap, entries: Iterator[tuple[int, int, int]]) -> Piece | None:
    """Some words more; None at the end."""
    some = list(islice(entries, _WORDS_AT_ONCE))
    if not some:
        return None
    numbers, begins, _ = np.array(some, dtype=np.int64).T
    return [data[begin:space] for _, begin, space in some], numbers, begins


def _rows_at(
    path: Path,
    data: mmap.mmap,
    layout: Word2vecFormat,
    words: list[bytes],
    found: tuple[IntArray, ...],
) -> tuple[Table, IntArray]:
    """Rows (R, D), and the row of each of `words` (-1: none).

    Args:
        found: which of the words are there, the how manieth of the file they are, and the byte of their numbers.
    """
    keys, numbers, starts = found
    wanted = Wanted(path, words, layout.size, "word")
    span = np.arange(4 * layout.size)
    memory = np.frombuffer(data, dtype=np.uint8)
    for begin in range(0, len(keys), _ROWS_AT_ONCE):
        some = slice(begin, begin + _ROWS_AT_ONCE)
        rows = memory[starts[some, None] + span].view("<f4").astype(np.float32, copy=False)
        wanted.add(keys[some], numbers[some], rows)
    return wanted.table, wanted.row_of_word


def _entries(path: Path, data: mmap.mmap, layout: Word2vecFormat) -> Iterator[tuple[int, int, int]]:
    """The how manieth of the file (from 1) each word is, the byte at which it begins, and that of the space behind it.

    One step a word: where a word begins is known from the one before alone.
    """
    row_bytes, at, end = 4 * layout.size, layout.skip, len(data)
    for number in range(1, layout.n_words + 1):
        space = data.find(b" ", at)
        begin = space + 1
        if space < 0 or begin + row_bytes > end:
            raise HydromelError(
                f"{path}: cut off in word {number:,} of {layout.n_words:,} (the file has {end:,} bytes, its first line "
                f"says {layout.size} numbers a word)"
            )
        while data[at] == _LINE_END:
            at += 1
        yield number, at, space
        at = begin + row_bytes
    if data[at:].strip(b"\n"):
        raise HydromelError(
            f"{path}: {end - at:,} bytes after the last of {layout.n_words:,} words; the first line is wrong"
        )
