"""word2vec's binary format: a line `words size`, then for each word its bytes, a space, and float32 numbers, little
endian; word2vec's own program writes a line end after each, others do not.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runner.embeddings.cursor import mapped
from runner.embeddings.vector_table import IntArray, Table, Wanted
from runner.embeddings.vector_text import header_of
from runner.errors import HydromelError

_OF_NUMBERS = frozenset(b"0123456789+-.eEnaifNAIF \t\r")
_ROWS_AT_ONCE = 512


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
    keys, numbers, starts = _locate(path, data, layout, places)
    wanted = Wanted(path, list(places), layout.size, "word")
    span = np.arange(4 * layout.size)
    memory = np.frombuffer(data, dtype=np.uint8)
    for begin in range(0, len(keys), _ROWS_AT_ONCE):
        some = slice(begin, begin + _ROWS_AT_ONCE)
        rows = memory[starts[some, None] + span].view("<f4").astype(np.float32, copy=False)
        wanted.add(keys[some], numbers[some], rows)
    return wanted.table, wanted.row_of_word, layout.n_words


def _locate(
    path: Path, data: mmap.mmap, layout: Word2vecFormat, places: dict[bytes, int]
) -> tuple[IntArray, IntArray, IntArray]:
    """Of the wanted words that are there: which, the how manieth of the file (from 1), and the byte of their numbers.

    One step a word: where a word begins is known from the one before alone.
    """
    found: list[tuple[int, int, int]] = []
    row_bytes, at, end = 4 * layout.size, layout.skip, len(data)
    for number in range(1, layout.n_words + 1):
        space = data.find(b" ", at)
        begin = space + 1
        if space < 0 or begin + row_bytes > end:
            raise HydromelError(
                f"{path}: cut off in word {number:,} of {layout.n_words:,} (the file has {end:,} bytes, its first line "
                f"says {layout.size} numbers a word)"
            )
        key = places.get(data[at:space].lstrip(b"\n"))
        if key is not None:
            found.append((key, number, begin))
        at = begin + row_bytes
    if data[at:].strip(b"\n"):
        raise HydromelError(
            f"{path}: {end - at:,} bytes after the last of {layout.n_words:,} words; the first line is wrong"
        )
    keys, numbers, starts = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return keys, numbers, starts
