"""The rows that are wanted of a file of vectors, taken as the file is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError

Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a file has for some words.

    Attributes:
        format: of the file, in words.
        table: (R, D) float32, the rows that are needed, each once.
        row_of_word: (W,) the row of each asked word, or -1. Words that fall back to the same form share its row.
        words_in_file: how many the file has.
        composed: how many of the asked words have a vector from their n-grams alone (fastText).
    """

    format: str
    table: Table
    row_of_word: IntArray
    words_in_file: int
    composed: int


class Wanted:
    """A table of as many rows as words are wanted, filled in the file's order.

    Memory that nothing was written to is not taken, so that the table is as large as what was found.

    Args:
        path: of the file, for messages.
        words: distinct; K of them.
        size: D.
        unit: what the file counts, `line` or `word`.
    """

    def __init__(self, path: Path, words: list[bytes], size: int, unit: str) -> None:
        self.path, self.words, self.unit = path, words, unit
        self.count = 0
        self.row_of_word = np.full(len(words), -1, dtype=np.int64)
        self._where = np.zeros(len(words), dtype=np.int64)  # number of the line or word, from 1
        self._rows = np.empty((len(words), size), dtype=np.float32)

    def add(self, keys: IntArray, where: IntArray, rows: Table) -> None:
        """Rows (k, D) of the words with these numbers, which stand `where` in the file.

        Raises:
            HydromelError: a word that was there before, or a number that is not finite.
        """
        before = self._where[keys]
        self._where[keys] = where
        twice = (before > 0) | (self._where[keys] != where)
        if twice.any():
            at = int(twice.argmax())
            first = int(before[at]) or int(where[at])
            again = int(where[at]) if before[at] else int(self._where[keys[at]])
            word = self.words[int(keys[at])].decode(errors="replace")
            raise HydromelError(f"{self._at(again)}: '{word}' is there twice, the first time in {self.unit} {first}")
        wrong = ~np.isfinite(rows).all(axis=1)
        if wrong.any():
            at = int(wrong.argmax())
            number = float(rows[at][~np.isfinite(rows[at])][0])
            word = self.words[int(keys[at])].decode(errors="replace")
            raise HydromelError(f"{self._at(int(where[at]))}: the vector of '{word}' holds {number}")
        self.row_of_word[keys] = self.count + np.arange(len(keys))
        self._rows[self.count : self.count + len(keys)] = rows
        self.count += len(keys)

    def _at(self, where: int) -> str:
        return f"{self.path}:{where}" if self.unit == "line" else f"{self.path}, word {where}"

    @property
    def table(self) -> Table:
        """(R, D) what was found."""
        return self._rows[: self.count]
