"""An index of the words of a vector file, so that a file that is queried repeatedly is scanned only once."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

import numpy as np

from runner.common.arrays import IntArray

# Consecutive words of a file, their 1-based numbers (of the line or word), and the byte offsets at which they start.
Piece = tuple[Sequence[bytes], IntArray, IntArray]


class WordIndex:
    """An index of word positions by Python's 64-bit hash, with 24 bytes per word, whatever its length.

    Args:
        data: the mapped file; it stays mapped as long as the index exists.
        pieces: all words of the file.
        ends: bytes that may follow a word.
    """

    def __init__(self, data: mmap.mmap, pieces: Iterable[Piece], ends: bytes) -> None:
        self.data, self._ends = data, frozenset(ends)
        parts = [(_hashes(words), numbers, starts) for words, numbers, starts in pieces]
        hashes, numbers, starts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers, self._starts = hashes[order], numbers[order], starts[order]

    def find(self, words: Sequence[bytes]) -> tuple[IntArray, IntArray, IntArray]:
        """Return index, number and start byte of each word that is in the file, in the file's order.

        A word that is in the file twice is returned twice.
        """
        # All entries with a word's hash are contiguous; expand the ranges first..last to one entry per candidate.
        hashes = _hashes(words)
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.searchsorted(self._hashes, hashes, side="right")
        word_of = np.repeat(np.arange(len(words)), last - first)
        place = np.repeat(first - np.cumsum(last - first) + (last - first), last - first) + np.arange(len(word_of))
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
