"""Where the words of a file of vectors stand, so that a file that is asked again and again is read through once."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

import numpy as np

from runner.common.arrays import IntArray

# words of a file one after another, their numbers (line or place, from 1), and the bytes at which they begin
Piece = tuple[Sequence[bytes], IntArray, IntArray]


class WordIndex:
    """Places of words by their hash (Python's own, of 64 bits): 24 bytes a word, whatever its length.

    Args:
        data: the mapped file; it stays mapped as long as the index is there.
        pieces: all of its words.
        ends: the bytes of which one follows each word.
    """

    def __init__(self, data: mmap.mmap, pieces: Iterable[Piece], ends: bytes) -> None:
        self.data, self._ends = data, frozenset(ends)
        parts = [(_hashes(words), numbers, starts) for words, numbers, starts in pieces]
        hashes, numbers, starts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers, self._starts = hashes[order], numbers[order], starts[order]

    def find(self, words: Sequence[bytes]) -> tuple[IntArray, IntArray, IntArray]:
        """Of the words that are there: which, their numbers, and the bytes at which they begin; in the file's order.

        A word that is there twice is found twice.
        """
        hashes = _hashes(words)
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.searchsorted(self._hashes, hashes, side="right")
        which = np.repeat(np.arange(len(words)), last - first)
        place = np.repeat(first - np.cumsum(last - first) + (last - first), last - first) + np.arange(len(which))
        starts = self._starts[place]
        same = [self._is(words[word], at) for word, at in zip(which.tolist(), starts.tolist(), strict=True)]
        which, place = which[same], place[same]
        order = np.argsort(self._numbers[place], kind="stable")
        return which[order], self._numbers[place][order], self._starts[place][order]

    def _is(self, word: bytes, at: int) -> bool:
        end = at + len(word)
        return self.data[at:end] == word and self.data[end] in self._ends


def _hashes(words: Sequence[bytes]) -> IntArray:
    return np.fromiter(map(hash, words), dtype=np.int64, count=len(words))
