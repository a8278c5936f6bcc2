"""Files of pretrained vectors: which format one is, told by its content, and the rows that a vocabulary needs.

Whatever the file's size, memory is taken for those rows alone: text is read in blocks, binary formats are mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runner.embeddings.fasttext import is_fasttext, read_fasttext
from runner.embeddings.vector_table import Found, IntArray, Table
from runner.embeddings.vector_text import TextFormat, read_text, text_format
from runner.embeddings.word2vec import read_word2vec, word2vec_format
from runner.errors import HydromelError

_HEAD_BYTES = 2**16  # the first line of a text of 5,000 numbers fits
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def find_vectors(path: Path, words: Sequence[str], lowercase_if_missing: bool) -> Found:
    """The rows for `words`, by exact form, or else (an option) by that of the word in lower case.

    Raises:
        HydromelError: no such file, none of these formats, or malformed: with the line or the byte.
    """
    head = _head(path)
    forms = [word.encode() for word in words]
    lowered = [word.lower().encode() for word in words] if lowercase_if_missing else forms
    if is_fasttext(head):
        return read_fasttext(path, forms, lowered)
    places = {form: place for place, form in enumerate(dict.fromkeys([*forms, *lowered]))}
    layout = word2vec_format(path, head) or text_format(path, head)
    if isinstance(layout, TextFormat):
        table, row_of_form, words_in_file = read_text(path, layout, places)
    else:
        table, row_of_form, words_in_file = read_word2vec(path, layout, places)
    exact = row_of_form[[places[form] for form in forms]]
    other = row_of_form[[places[form] for form in lowered]]
    row_of_word = np.where(exact >= 0, exact, other)
    return Found(layout.name, *_only_used(table, row_of_word), words_in_file, composed=0)


def fingerprint(path: Path) -> str:
    """A hash of size, time of change and the first 64 KiB: a whole file of gigabytes would take longer than reading."""
    state = path.stat()
    known = f"{state.st_size} {state.st_mtime_ns} ".encode() + _head(path)
    return hashlib.sha256(known).hexdigest()[:24]


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror}); embedding.path names the vectors") from error
    if not head:
        raise HydromelError(f"{path}: the file is empty")
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise HydromelError(f"{path}: a {name} file; unpack it first, since vectors are read where they lie")
    return head


def _only_used(table: Table, row_of_word: IntArray) -> tuple[Table, IntArray]:
    """Without rows of lower-case forms whose words were found as they are."""
    used = np.zeros(len(table), dtype=bool)
    used[row_of_word[row_of_word >= 0]] = True
    if used.all():
        return table, row_of_word
    new_place = np.append(np.cumsum(used) - 1, -1)  # -1 stays -1
    return table[used], new_place[row_of_word]
