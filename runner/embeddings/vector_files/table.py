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
    composed: int  # number of words whose vector is composed only of n-grams (fastText)


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, so that bytes are read when they are accessed.

    The map is closed when the last array that views it is garbage-collected.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class WordIndex:
    """An index of word positions by Python's 64-bit hash, with 24 bytes per word, whatever its length.

    The file's `data` stay mapped as long as the index exists. `ends` are the bytes that may follow a word.
    """

    def __init__(self, data: mmap.mmap, pieces: Iterable[Piece], ends: bytes) -> None:
        self.data, self._ends = data, frozenset(ends)
        parts = [np.stack([_hashes(words), numbers, starts]) for words, numbers, starts in pieces]
        entries = np.concatenate([np.zeros((3, 0), dtype=np.int64), *parts], axis=1)
        self._hashes, self._numbers, self._starts = entries[:, np.argsort(entries[0], kind="stable")]

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, words: Sequence[bytes]) -> tuple[IntArray, IntArray, IntArray]:
        """Return index, number and start byte of each of the words in the file, in its order; duplicates twice."""
        # All entries with a word's hash are contiguous; expand the ranges first..last to one entry per candidate.
        hashes = _hashes(words)
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.searchsorted(self._hashes, hashes, side="right")
        word_of = np.repeat(np.arange(len(words)), last - first)
        place = np.repeat(last - np.cumsum(last - first), last - first) + np.arange(len(word_of))
        # Different words may have the same hash, so compare with the bytes in the file.
        starts = self._starts[place]
        same = [self._is_at(words[word], at) for word, at in zip(word_of.tolist(), starts.tolist(), strict=True)]
        word_of, place = word_of[same], place[same]
        order = np.argsort(self._numbers[place], kind="stable")
        return word_of[order], self._numbers[place][order], self._starts[place][order]

    def _is_at(self, word: bytes, at: int) -> bool:
        end = at + len(word)
        return self.data[at:end] == word and self.data[end] in self._ends


def _hashes(words: Sequence[bytes]) -> IntArray:
    return np.fromiter(map(hash, words), dtype=np.int64, count=len(words))


@dataclass(frozen=True)
class IndexedFile(ABC):
    """A vector file that is scanned once, for an index of its words; only the vectors of wanted words are parsed."""

    path: Path
    format: str  # its readable name
    size: int  # D, the vector size
    words_in_header: int | None  # None without a header
    skip: int  # number of bytes before the first word
    unit: ClassVar[Literal["line", "word"]]  # of the numbers of words
    word_ends: ClassVar[bytes]  # bytes that may follow a word

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
        return WordIndex(data, self.pieces(data), self.word_ends)

    def read(self, words: list[bytes]) -> tuple[Table, IntArray]:
        """Return the table (R, D), in the file's order, and the row of each of the distinct `words` (-1: none).

        Raises:
            HydromelError: a malformed file, a word that occurs twice, or a number that is invalid or not finite.
        """
        keys, numbers, starts = self.index.find(words)
        row_of_word = np.full(len(words), -1, dtype=np.int64)
        row_of_word[keys] = np.arange(len(keys))
        for first in np.flatnonzero(row_of_word[keys] != np.arange(len(keys))).tolist():
            word, again = words[keys[first]].decode(errors="replace"), numbers[row_of_word[keys[first]]]
            raise HydromelError(
                f"{self._place(again)}: duplicate word '{word}', first in {self.unit} {numbers[first]}; remove one of "
                "the two"
            )
        ends = starts + np.array([len(word) for word in words], dtype=np.int64)[keys]
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
