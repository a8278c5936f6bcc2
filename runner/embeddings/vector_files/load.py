"""Loading pretrained vectors: detecting a file's format by content, and reading the rows that a vocabulary needs.

Memory is used only for those rows and an index of the words: text is read in blocks, binary formats are mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.types import UnicodeForm
from runner.embeddings.vector_files.fasttext import MAGIC, read_fasttext
from runner.embeddings.vector_files.table import FoundVectors, Table
from runner.embeddings.vector_files.text import TextFile
from runner.embeddings.vector_files.word2vec import Word2vecFile
from runner.text.normal_forms import normal_form

_HEAD_BYTES = 2**16  # enough for the first line of a text file with vectors of size 5,000
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_CHECK = "check embedding.path, and the folder that it is relative to (data_dir, --data-dir)"


class VectorFile:
    """A vector file, which may be queried repeatedly; a HydromelError if there is none or its format is unknown.

    Its words are compared in the normal form `unicode`; among words that are then equal, the first is used. They are
    indexed at the first query, in 32 bytes per word. A fastText model is read again for each query.
    """

    def __init__(self, path: Path, unicode: UnicodeForm = "NFC") -> None:
        head = _head(path)
        self.path, self.unicode = path, unicode
        is_fasttext = head.startswith(MAGIC)
        self._file = (
            None if is_fasttext else Word2vecFile.open(path, head, unicode) or TextFile.open(path, head, unicode)
        )

    def find(self, words: Sequence[str], lowercase_if_missing: bool) -> FoundVectors:
        """Find the vectors of `words`, in normal form, or optionally of the lower-case form if the file lacks a word.

        Raises:
            HydromelError: a malformed file; the message has the line or byte.
        """
        forms = [word.encode() for word in words]
        lowered = forms
        if lowercase_if_missing:
            lowered = [normal_form(word, self.unicode, lowercase=True).encode() for word in words]
        if self._file is None:
            return read_fasttext(self.path, forms, lowered, self.unicode)
        places = {form: place for place, form in enumerate(dict.fromkeys([*forms, *lowered]))}
        table, row_of_form = self._file.read([*places])
        exact, fallback = (row_of_form[[places[form] for form in of_words]] for of_words in (forms, lowered))
        table, row_of_word = _only_used(table, np.where(exact >= 0, exact, fallback))
        index = self._file.index
        return FoundVectors(self._file.format, table, row_of_word, len(index), index.duplicates, composed=0)


def fingerprint(path: Path) -> str:
    """Return a hash of the file's size, modification time and first 64 KiB; hashing gigabytes would take too long."""
    state = path.stat()
    known = f"{state.st_size} {state.st_mtime_ns} ".encode() + _head(path)
    return hashlib.sha256(known).hexdigest()[:24]


def _head(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # opening a named pipe would wait for whoever writes to it
        raise HydromelError(f"{path}: not a regular file; {_CHECK}")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror}); {_CHECK}") from error
    if not head:
        raise HydromelError(f"{path}: the file is empty; {_CHECK}")
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
