"""The table of vectors that is filled while a vector file is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError

Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoundVectors:
    """The vectors found for a list of W words.

    Attributes:
        format: readable name of the file's format.
        table: (R, D) float32, the needed rows, without duplicates.
        row_of_word: (W,) row of each word, or -1. Words that fall back to the same form share its row.
        words_in_file: number of words in the file.
        composed: number of words whose vector is composed only of n-grams (fastText).
    """

    format: str
    table: Table
    row_of_word: IntArray
    words_in_file: int
    composed: int


class TableBuilder:
    """A table with room for all wanted words, filled in the file's order.

    The operating system commits only the pages that are written to, so memory is used only for words that are found.

    Args:
        path: path of the file, for messages.
        words: K distinct words.
        size: D.
        unit: unit of positions in the file, `line` or `word`.
    """

    def __init__(self, path: Path, words: list[bytes], size: int, unit: str) -> None:
        self.path, self.words, self.unit = path, words, unit
        self.count = 0
        self.row_of_word = np.full(len(words), -1, dtype=np.int64)
        self._where = np.zeros(len(words), dtype=np.int64)  # 1-based line or word; 0: not found so far
        self._rows = np.empty((len(words), size), dtype=np.float32)

    def add(self, keys: IntArray, where: IntArray, rows: Table) -> None:
        """Add the rows (k, D) of the words with indices `keys` (k,), found at positions `where` (k,) of the file.

        Raises:
            HydromelError: a word that occurs twice, or a number that is not finite.
        """
        before = self._where[keys]
        self._where[keys] = where
        # A word is a duplicate if an earlier call added it, or if a later entry of this call has overwritten it.
        is_duplicate = (before > 0) | (self._where[keys] != where)
        if is_duplicate.any():
            at = int(is_duplicate.argmax())
            first = int(before[at]) or int(where[at])
            again = int(where[at]) if before[at] else int(self._where[keys[at]])
            word = self.words[int(keys[at])].decode(errors="replace")
            raise HydromelError(
                f"{self._at(again)}: duplicate word '{word}', first in {self.unit} {first}; remove one of the two"
            )
        not_finite = ~np.isfinite(rows).all(axis=1)
        if not_finite.any():
            at = int(not_finite.argmax())
            number = float(rows[at][~np.isfinite(rows[at])][0])
            word = self.words[int(keys[at])].decode(errors="replace")
            raise HydromelError(
                f"{self._at(int(where[at]))}: the vector of '{word}' contains {number}; all numbers must be finite"
            )
        self.row_of_word[keys] = self.count + np.arange(len(keys))
        self._rows[self.count : self.count + len(keys)] = rows
        self.count += len(keys)

    def _at(self, where: int) -> str:
        return f"{self.path}:{where}" if self.unit == "line" else f"{self.path}, word {where}"

    @property
    def table(self) -> Table:
        """The rows (R, D) that were added."""
        return self._rows[: self.count]
