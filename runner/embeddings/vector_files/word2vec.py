"""The binary word2vec format: a line `words size`, then for each word its bytes, a space and little-endian float32.

The original word2vec program writes a line end after each vector; other programs do not.
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
from runner.embeddings.vector_files.binary_reader import map_file
from runner.embeddings.vector_files.index import Piece, WordIndex
from runner.embeddings.vector_files.table import Table, TableBuilder
from runner.embeddings.vector_files.text import header_of

_NUMBER_BYTES = frozenset(b"0123456789+-.eEnaifNAIF \t\r")
_CHUNK_ROWS = 512
_CHUNK_WORDS = 2**16
_LINE_END = ord("\n")


@dataclass(frozen=True)
class Word2vecFormat:
    """The layout of a binary word2vec file.

    Attributes:
        n_words: number of words according to the header.
        size: D, the vector size.
        skip: number of bytes before the first word.
        name: name of the format.
    """

    n_words: int
    size: int
    skip: int
    name: str = "word2vec binary"


def word2vec_format(path: Path, head: bytes) -> Word2vecFormat | None:
    """Return the layout from the first bytes; None if there is no header, or if text follows it.

    Raises:
        HydromelError: a header with 0 words or size 0.
    """
    first, _, rest = head.partition(b"\n")
    header = header_of(first.removeprefix(b"\xef\xbb\xbf"))
    if header is None:
        return None
    n_words, size = header
    if not n_words or not size:
        raise HydromelError(f"{path}:1: the first line says {n_words} words of size {size}; both must be above 0")
    # The text format has the same header. It is text if what follows the first word looks like decimal numbers.
    _, _, numbers = rest.lstrip().partition(b" ") if b" " in rest else rest.partition(b"\t")
    line = numbers[: 4 * size].partition(b"\n")[0]
    is_text = not numbers or (line and _NUMBER_BYTES.issuperset(line))
    return None if is_text else Word2vecFormat(n_words, size, len(first) + 1)


def read_word2vec(path: Path, layout: Word2vecFormat, places: dict[bytes, int]) -> tuple[Table, IntArray, int]:
    """Return the table (R, D), the row of each wanted word (-1: none), and the number of words in the file.

    Args:
        path: path of the file.
        layout: its layout.
        places: wanted word -> its index, from 0.

    Raises:
        HydromelError: the file ends early or continues after its last word, a word occurs twice, or a number is not
            finite.
    """
    data = map_file(path)
    entries = [
        (key, number, space + 1)
        for number, start, space in _entries(path, data, layout)
        if (key := places.get(data[start:space])) is not None
    ]
    columns = tuple(np.array(entries, dtype=np.int64).reshape(-1, 3).T)
    return *_rows_at(path, data, layout, list(places), columns), layout.n_words


def index_word2vec(path: Path, layout: Word2vecFormat) -> WordIndex:
    """Return an index of the words of the file."""
    data = map_file(path)
    entries = _entries(path, data, layout)
    return WordIndex(data, iter(lambda: _piece(data, entries), None), b" ")


def read_word2vec_at(
    path: Path, layout: Word2vecFormat, words: list[bytes], index: WordIndex
) -> tuple[Table, IntArray]:
    """Return the table (R, D), and the row of each of the words (-1: none), using an index.

    Raises:
        HydromelError: a word occurs twice, or a number is not finite.
    """
    keys, numbers, starts = index.find(words)
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    return _rows_at(path, index.data, layout, words, (keys, numbers, starts + lengths[keys] + 1))


def _piece(data: mmap.mmap, entries: Iterator[tuple[int, int, int]]) -> Piece | None:
    """Return the next piece for the index; None at the end."""
    chunk = list(islice(entries, _CHUNK_WORDS))
    if not chunk:
        return None
    numbers, starts, _ = np.array(chunk, dtype=np.int64).T
    return [data[start:space] for _, start, space in chunk], numbers, starts


def _rows_at(
    path: Path,
    data: mmap.mmap,
    layout: Word2vecFormat,
    words: list[bytes],
    entries: tuple[IntArray, ...],
) -> tuple[Table, IntArray]:
    """Return the table (R, D), and the row of each of `words` (-1: none).

    Args:
        path: path of the file, for messages.
        data: the mapped file.
        layout: its layout.
        words: the wanted words.
        entries: for each word that is in the file, its index in `words`, its 1-based number in the file, and the byte
            offset of its vector.
    """
    keys, numbers, starts = entries
    builder = TableBuilder(path, words, layout.size, "word")
    span = np.arange(4 * layout.size)
    memory = np.frombuffer(data, dtype=np.uint8)
    for first in range(0, len(keys), _CHUNK_ROWS):
        chunk = slice(first, first + _CHUNK_ROWS)
        rows = memory[starts[chunk, None] + span].view("<f4").astype(np.float32, copy=False)
        builder.add(keys[chunk], numbers[chunk], rows)
    return builder.table, builder.row_of_word


def _entries(path: Path, data: mmap.mmap, layout: Word2vecFormat) -> Iterator[tuple[int, int, int]]:
    """Yield the 1-based number of each word, the byte offset at which it starts, and that of the space after it.

    Words have no index, so each is found from the end of the previous vector.
    """
    row_bytes, at, end = 4 * layout.size, layout.skip, len(data)
    for number in range(1, layout.n_words + 1):
        space = data.find(b" ", at)
        vector_start = space + 1
        if space < 0 or vector_start + row_bytes > end:
            raise HydromelError(
                f"{path}: the file ends within word {number:,} of {layout.n_words:,} (it has {end:,} bytes, and its "
                f"first line says vectors of size {layout.size}); it is truncated or its first line is wrong"
            )
        while data[at] == _LINE_END:
            at += 1
        yield number, at, space
        at = vector_start + row_bytes
    if data[at:].strip(b"\n"):
        raise HydromelError(
            f"{path}: {end - at:,} bytes follow the last of {layout.n_words:,} words; the first line is wrong"
        )
