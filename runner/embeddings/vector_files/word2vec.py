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
from runner.embeddings.vector_files.text import BYTE_ORDER_MARK, header_of

_NUMBER_BYTES = frozenset(b"0123456789+-.eEnaifNAIF \t\r")
_CHUNK_ROWS = 512
_CHUNK_WORDS = 2**16
_LINE_END = ord("\n")


@dataclass(frozen=True)
class Word2vecFile:
    """A binary word2vec file.

    Attributes:
        path: path of the file.
        size: D, the vector size.
        n_words: number of words according to the header.
        skip: number of bytes before the first word.
        format: name of the format.
    """

    path: Path
    size: int
    n_words: int
    skip: int
    format: str = "word2vec binary"

    @classmethod
    def open(cls, path: Path, head: bytes) -> Word2vecFile | None:
        """Return the file whose first bytes are `head`; None if there is no header, or if text follows it.

        Raises:
            HydromelError: a header with 0 words or size 0.
        """
        first_line, _, rest = head.partition(b"\n")
        header = header_of(first_line.removeprefix(BYTE_ORDER_MARK))
        if header is None:
            return None
        n_words, size = header
        if not n_words or not size:
            raise HydromelError(f"{path}:1: the first line says {n_words} words of size {size}; both must be above 0")
        # The text format has the same header. It is text if what follows the first word looks like decimal numbers.
        _, _, numbers = rest.lstrip().partition(b" ") if b" " in rest else rest.partition(b"\t")
        line = numbers[: 4 * size].partition(b"\n")[0]
        is_text = not numbers or (line and _NUMBER_BYTES.issuperset(line))
        return None if is_text else cls(path, size, n_words, len(first_line) + 1)

    def read(self, places: dict[bytes, int]) -> tuple[Table, IntArray, int]:
        """Return the table (R, D), the row of each wanted word (-1: none), and the number of words in the file.

        Args:
            places: wanted word -> its index, from 0.

        Raises:
            HydromelError: the file ends early or continues after its last word, a word occurs twice, or a number is not
                finite.
        """
        data = map_file(self.path)
        entries = [
            (key, number, space + 1)
            for number, start, space in self._entries(data)
            if (key := places.get(data[start:space])) is not None
        ]
        columns = np.array(entries, dtype=np.int64).reshape(-1, 3).T
        return *self._read_rows(data, list(places), *columns), self.n_words

    def index(self) -> WordIndex:
        """Return an index of the words of the file."""
        data = map_file(self.path)
        entries = self._entries(data)
        return WordIndex(data, iter(lambda: _next_piece(data, entries), None), b" ")

    def read_indexed(self, words: list[bytes], index: WordIndex) -> tuple[Table, IntArray]:
        """Return the table (R, D), and the row of each of the words (-1: none), using an index.

        Raises:
            HydromelError: a word occurs twice, or a number is not finite.
        """
        keys, numbers, starts = index.find(words)
        lengths = np.array([len(word) for word in words], dtype=np.int64)
        return self._read_rows(index.data, words, keys, numbers, starts + lengths[keys] + 1)

    def _read_rows(
        self, data: mmap.mmap, words: list[bytes], keys: IntArray, numbers: IntArray, starts: IntArray
    ) -> tuple[Table, IntArray]:
        """Return the table (R, D), and the row of each of `words` (-1: none).

        Args:
            data: the mapped file.
            words: the wanted words.
            keys: index in `words` of each word that is in the file.
            numbers: its 1-based number in the file.
            starts: the byte offset of its vector.
        """
        builder = TableBuilder(self.path, words, self.size, "word")
        span = np.arange(4 * self.size)
        content = np.frombuffer(data, dtype=np.uint8)
        for first in range(0, len(keys), _CHUNK_ROWS):
            chunk = slice(first, first + _CHUNK_ROWS)
            rows = content[starts[chunk, None] + span].view("<f4").astype(np.float32, copy=False)
            builder.add(keys[chunk], numbers[chunk], rows)
        return builder.table, builder.row_of_word

    def _entries(self, data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
        """Yield the 1-based number of each word, the byte offset at which it starts, and that of the space after it.

        Words have no index, so each is found from the end of the previous vector.
        """
        row_bytes, at, end = 4 * self.size, self.skip, len(data)
        for number in range(1, self.n_words + 1):
            space = data.find(b" ", at)
            vector_start = space + 1
            if space < 0 or vector_start + row_bytes > end:
                raise HydromelError(
                    f"{self.path}: the file ends within word {number:,} of {self.n_words:,} (it has {end:,} bytes, and "
                    f"its first line says vectors of size {self.size}); it is truncated or its first line is wrong"
                )
            while data[at] == _LINE_END:
                at += 1
            yield number, at, space
            at = vector_start + row_bytes
        if data[at:].strip(b"\n"):
            raise HydromelError(
                f"{self.path}: {end - at:,} bytes follow the last of {self.n_words:,} words; the first line is wrong"
            )


def _next_piece(data: mmap.mmap, entries: Iterator[tuple[int, int, int]]) -> Piece | None:
    """Return the next piece for the index; None at the end."""
    chunk = list(islice(entries, _CHUNK_WORDS))
    if not chunk:
        return None
    numbers, starts, _ = np.array(chunk, dtype=np.int64).T
    return [data[start:space] for _, start, space in chunk], numbers, starts
