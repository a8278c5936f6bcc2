"""Loading pretrained vectors: detecting a file's format by content, and reading the rows that a vocabulary needs.

Memory is used only for those rows, whatever the size of the file: text is read in blocks, binary formats are mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.embeddings.vector_files.fasttext import is_fasttext, read_fasttext
from runner.embeddings.vector_files.table import FoundVectors, Table
from runner.embeddings.vector_files.text import TextFile
from runner.embeddings.vector_files.word2vec import Word2vecFile

_HEAD_BYTES = 2**16  # enough for the first line of a text file with vectors of size 5,000
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def find_vectors(path: Path, words: Sequence[str], lowercase_if_missing: bool) -> FoundVectors:
    """Find the vectors of `words` by exact form, or optionally by the lower-case form if the file lacks the word.

    Raises:
        HydromelError: no such file, an unknown format, or a malformed file; the message has the line or byte.
    """
    forms, lowered, places = _forms(words, lowercase_if_missing)
    file = _open(path)
    if file is None:
        return read_fasttext(path, forms, lowered)
    table, row_of_form, words_in_file = file.read(places)
    row_of_word = _by_word(row_of_form, forms, lowered, places)
    return FoundVectors(file.format, *_only_used(table, row_of_word), words_in_file, composed=0)


class VectorFile:
    """A vector file that is queried repeatedly; its words are indexed once.

    The index takes 24 bytes per word. A fastText model has no index: its dictionary is read again for each query.

    Raises:
        HydromelError: as for `find_vectors`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, _open(path)
        self._index = None if self._file is None else self._file.index()

    def find(self, words: Sequence[str], lowercase_if_missing: bool) -> tuple[Table, IntArray]:
        """Return the same as `find_vectors`: the table (R, D), and the row of each word (-1: none)."""
        if self._file is None or self._index is None:
            vectors = find_vectors(self.path, words, lowercase_if_missing)
            return vectors.table, vectors.row_of_word
        forms, lowered, places = _forms(words, lowercase_if_missing)
        table, row_of_form = self._file.read_indexed(list(places), self._index)
        return _only_used(table, _by_word(row_of_form, forms, lowered, places))


def _open(path: Path) -> TextFile | Word2vecFile | None:
    """Return the file in the format that its first bytes show; None: a fastText model."""
    head = _head(path)
    return None if is_fasttext(head) else Word2vecFile.open(path, head) or TextFile.open(path, head)


def _forms(words: Sequence[str], lowercase_if_missing: bool) -> tuple[list[bytes], list[bytes], dict[bytes, int]]:
    """Return the words, their fallback forms, and an index of the distinct ones among both."""
    forms = [word.encode() for word in words]
    lowered = [word.lower().encode() for word in words] if lowercase_if_missing else forms
    return forms, lowered, {form: place for place, form in enumerate(dict.fromkeys([*forms, *lowered]))}


def _by_word(row_of_form: IntArray, forms: list[bytes], lowered: list[bytes], places: dict[bytes, int]) -> IntArray:
    """Return the row of each word, or that of its fallback form if the word itself has none."""
    exact = row_of_form[[places[form] for form in forms]]
    fallback = row_of_form[[places[form] for form in lowered]]
    rows: IntArray = np.where(exact >= 0, exact, fallback)
    return rows


def fingerprint(path: Path) -> str:
    """Return a hash of the file's size, modification time and first 64 KiB; hashing gigabytes would take too long."""
    state = path.stat()
    known = f"{state.st_size} {state.st_mtime_ns} ".encode() + _head(path)
    return hashlib.sha256(known).hexdigest()[:24]


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror}); check embedding.path") from error
    if not head:
        raise HydromelError(f"{path}: the file is empty")
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise HydromelError(f"{path}: a {name} file; unpack it first, since vectors are read in place")
    return head


def _only_used(table: Table, row_of_word: IntArray) -> tuple[Table, IntArray]:
    """Remove the rows of fallback forms that no word uses, since the word itself was found."""
    used = np.zeros(len(table), dtype=bool)
    used[row_of_word[row_of_word >= 0]] = True
    if used.all():
        return table, row_of_word
    new_place = np.append(np.cumsum(used) - 1, -1)  # -1 stays -1
    return table[used], new_place[row_of_word]
