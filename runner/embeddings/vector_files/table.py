"""Tables of vectors, and vector files whose words are indexed."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from runner.common.arrays import IntArray, SingleArray
from runner.common.errors import HydromelError
from runner.common.types import UnicodeForm
from runner.text.normal_forms import normal_bytes

Table = SingleArray
# Consecutive words of a file, their 1-based numbers (of the line or word), and the byte offsets at which they start.
Piece = tuple[Sequence[bytes], IntArray, IntArray]
_CHUNK_ROWS = 512


@dataclass(frozen=True)
class FoundVectors:
    """The vectors found for a list of W words."""

    format: str  # readable name of the file's format
    table: Table  # (R, D), the needed rows, without duplicates
    row_of_word: IntArray  # (W,) row of each word, or -1. Words that fall back to the same form share its row.
    words_in_file: int
    duplicates: int  # number of repeated words in the file, of which the first is used
    composed: int  # number of words whose vector is composed only of n-grams (fastText)


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, so that bytes are read when they are accessed.

    The map is closed when the last array that views it is garbage-collected.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class WordIndex:
    """An index of word positions by Python's 64-bit hash, with 32 bytes per word, whatever its length.

    The file's `data` stay mapped as long as the index exists. Words are compared in the normal form `unicode`.
    """

    def __init__(self, data: mmap.mmap, pieces: Iterable[Piece], unicode: UnicodeForm) -> None:
        self.data, self._unicode = data, unicode
        parts = []
        for words, numbers, starts in pieces:
            hashes = _hashes([normal_bytes(word, unicode) for word in words])
            parts.append(np.stack([hashes, numbers, starts, starts + _sizes(words)]))
        entries = np.concatenate([np.zeros((4, 0), dtype=np.int64), *parts], axis=1)
        self._hashes, self._numbers, self._starts, self._ends = entries[:, np.argsort(entries[0], kind="stable")]

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def duplicates(self) -> int:
        """The number of words in the file that repeat an earlier one, in the same normal form."""
        return int(np.count_nonzero(np.diff(self._hashes) == 0))

    def find(self, words: Sequence[bytes]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return the index, number, first byte and last byte + 1 of each word that the file has, in the file's order.

        A repeated word is found once, at its first occurrence.
        """
        # All entries with a word's hash are contiguous; expand the ranges first..last to one entry per candidate.
        hashes = _hashes(words)
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.searchsorted(self._hashes, hashes, side="right")
        word_of = np.repeat(np.arange(len(words)), last - first)
        place = np.repeat(last - np.cumsum(last - first), last - first) + np.arange(len(word_of))
        # Different words may have the same hash, so compare with the bytes in the file.
        spans = zip(word_of.tolist(), self._starts[place].tolist(), self._ends[place].tolist(), strict=True)
        same = [normal_bytes(self.data[start:end], self._unicode) == words[word] for word, start, end in spans]
        word_of, place = word_of[same], place[same]
        order = np.argsort(self._numbers[place], kind="stable")
        first_of_each = np.sort(np.unique(word_of[order], return_index=True)[1])
        place = place[order][first_of_each]
        return word_of[order][first_of_each], self._numbers[place], self._starts[place], self._ends[place]


def _sizes(words: Sequence[bytes]) -> IntArray:
    return np.fromiter(map(len, words), dtype=np.int64, count=len(words))


def _hashes(words: Sequence[bytes]) -> IntArray:
    return np.fromiter(map(hash, words), dtype=np.int64, count=len(words))


@dataclass(frozen=True)
class IndexedFile(ABC):
    """A vector file that is scanned once, for an index of its words; only the vectors of wanted words are parsed."""

    path: Path
    format: str  # name of the format, for messages
    size: int  # D, the vector size
    words_in_header: int | None  # None without a header
    skip: int  # number of bytes before the first word
    unicode: UnicodeForm  # normal form in which words are compared
    unit: ClassVar[Literal["line", "word"]]  # unit of the numbers that locate words

    @abstractmethod
    def pieces(self, data: mmap.mmap) -> Iterator[Piece]:
        """Yield all words of the file; raise a HydromelError if it is malformed or has another number of words."""

    @abstractmethod
    def vectors(self, data: mmap.mmap, numbers: IntArray, starts: IntArray, ends: IntArray) -> Table:
        """Return the vectors (k, D) of some words, given their numbers, and their first and last + 1 bytes."""

    @cached_property
    def index(self) -> WordIndex:
        """The index of the file's words."""
        data = map_file(self.path)
        return WordIndex(data, self.pieces(data), self.unicode)

    def read(self, words: list[bytes]) -> tuple[Table, IntArray]:
        """Return the table (R, D), in the file's order, and the row of each of the distinct `words` (-1: none).

        Raises:
            HydromelError: a malformed file, or a number that is invalid or not finite.
        """
        keys, numbers, starts, ends = self.index.find(words)
        row_of_word = np.full(len(words), -1, dtype=np.int64)
        row_of_word[keys] = np.arange(len(keys))
        table = np.empty((len(keys), self.size), dtype=np.float32)
        for at in range(0, len(keys), _CHUNK_ROWS):
            chunk = slice(at, at + _CHUNK_ROWS)
            table[chunk] = self.vectors(self.index.data, numbers[chunk], starts[chunk], ends[chunk])
            for row, column in np.argwhere(~np.isfinite(table[chunk])).tolist():
                word = words[keys[at + row]].decode(errors="replace")
                raise HydromelError(
                    f"{self._place(numbers[at + row])}: the vector of '{word}' contains {table[at + row, column]}; all "
                    "numbers must be finite"
                )
        return table, row_of_word

    def _place(self, number: int) -> str:
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}, word {number}"
