"""The binary word2vec format: a line `words size`, then for each word its bytes, a space and little-endian float32.

The original word2vec program writes a line end after each vector; other programs do not.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import UnicodeForm
from runner.embeddings.vector_files.table import IndexedFile, Piece, Table
from runner.embeddings.vector_files.text import BYTE_ORDER_MARK, header_of

_NUMBER_BYTES = frozenset(b"0123456789+-.eEnaifNAIF \t\r")
_CHUNK_WORDS = 2**16
_LINE_END = ord("\n")


class Word2vecFile(IndexedFile):
    """A binary word2vec file."""

    unit = "word"

    @classmethod
    def open(cls, path: Path, head: bytes, unicode: UnicodeForm) -> Word2vecFile | None:
        """Return the file whose first bytes are `head`; None if there is no header, or if text follows it."""
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
        return None if is_text else cls(path, "word2vec binary", size, n_words, len(first_line) + 1, unicode)

    def pieces(self, data: mmap.mmap) -> Iterator[Piece]:
        entries = self._entries(data)
        while chunk := list(islice(entries, _CHUNK_WORDS)):
            numbers, starts, _ = np.array(chunk, dtype=np.int64).T
            yield [data[start:space] for _, start, space in chunk], numbers, starts

    def vectors(self, data: mmap.mmap, numbers: IntArray, starts: IntArray, ends: IntArray) -> Table:
        content = np.frombuffer(data, dtype=np.uint8)  # a space follows the word
        rows: Table = content[ends[:, None] + 1 + np.arange(4 * self.size)].view("<f4").astype(np.float32, copy=False)
        return rows

    def _entries(self, data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
        """Yield the 1-based number of each word, the byte offset at which it starts, and that of the space after it.

        Words have no index, so each is found from the end of the previous vector.
        """
        row_bytes, at, end, n_words = 4 * self.size, self.skip, len(data), self.words_in_header or 0
        for number in range(1, n_words + 1):
            space = data.find(b" ", at)
            vector_start = space + 1
            if space < 0 or vector_start + row_bytes > end:
                raise HydromelError(
                    f"{self.path}: the file ends within word {number:,} of {n_words:,} (it has {end:,} bytes, and "
                    f"its first line says vectors of size {self.size}); it is truncated or its first line is wrong"
                )
            while data[at] == _LINE_END:
                at += 1
            yield number, at, space
            at = vector_start + row_bytes
        if data[at:].strip(b"\n"):
            raise HydromelError(
                f"{self.path}: {end - at:,} bytes follow the last of {n_words:,} words; the first line is wrong"
            )
