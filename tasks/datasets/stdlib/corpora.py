"""Built-in corpora: real text on every machine, from the standard library of the running Python, without a download.

Splits are by file (80 / 10 / 10 % of the files, by a hash of the file's name in the library). So valid and test come
from files that are not in train, and a file stays in its split when the library grows. Another Python version gives
different corpora; the fingerprint contains the version. Files that the running Python cannot parse are ignored.

Every table has a column `origin`, `FILE:LINE` in the library, in addition to the columns of its task.
"""

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from runner.text.arrow import list_column
from tasks.datasets.split import SPLITS
from tasks.datasets.stdlib.docs import THEME_OF, TOKEN, TOPICS, docstrings, topics
from tasks.datasets.stdlib.roles import logical_lines
from tasks.datasets.stdlib.source import (
    Size,
    SourceFile,
    fingerprint,
    library,
    parse,
    place,
    read,
    source_files,
    split_of,
)

T = TypeVar("T")
SizeName = Literal["small", "medium", "full"]
CODE_SIZES = {"small": Size(0.25, 24_000), "medium": Size(0.5, 64_000), "full": Size(1, np.inf)}
DOC_SIZES = {"small": Size(0.5, 64_000), "medium": Size(0.75, 128_000), "full": Size(1, np.inf)}
MAX_LINE_TOKENS = 200  # longer logical lines are tables of data (18 of 81,525 lines in CPython 3.11.7)
MIN_DOC_TOKENS = 5  # shorter docstrings hardly identify their theme
OWN_NAME = "<module>"


class Row(NamedTuple):
    """One example: its split, tokens, label and tags (None if the task has none), and origin."""

    split: str
    tokens: list[str]
    label: str | None
    tags: list[str] | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class StdlibRoles:
    """A tagging corpus: the role of each token in a logical line of source code (see `roles`).

    Among lines with the same tokens only the first is kept, in the order train, valid, test. Lines of more than
    `MAX_LINE_TOKENS` tokens are ignored.

    Args:
        name: the data set's name in messages and records.
        size: part of the library that is read.
        span_scheme: scheme of the tags.
    """

    name: str
    size: SizeName
    span_scheme: Literal["IOB2"]

    def fingerprint(self) -> str:
        arguments = {"corpus": "roles", "size": self.size, "span_scheme": self.span_scheme}
        return fingerprint(arguments, source_files(CODE_SIZES[self.size]))

    def read(self) -> dict[str, pa.Table]:
        return tables(distinct(rows_of(source_files(CODE_SIZES[self.size]), self._rows)))

    @staticmethod
    def _rows(file: SourceFile) -> list[Row]:
        return [
            Row(split_of(file.name), tokens, None, tags, f"{file.name}:{line}")
            for tokens, tags, line in logical_lines(file.text())
            if len(tokens) <= MAX_LINE_TOKENS
        ]


@dataclass(frozen=True, kw_only=True)
class StdlibModules:
    """A classification corpus: the theme (`docs.THEMES`) of the module that a docstring comes from.

    The name of the docstring's top-level module is replaced by `<module>`, whatever its case. Docstrings of fewer than
    `MIN_DOC_TOKENS` tokens are ignored, and so are themes in valid and test that are not in train with this Python.
    Among docstrings with the same tokens only the first is kept, in the order train, valid, test.

    Args:
        name: the data set's name in messages and records.
        size: part of the library that is read.
    """

    name: str
    size: SizeName

    def fingerprint(self) -> str:
        return fingerprint({"corpus": "modules", "size": self.size}, source_files(DOC_SIZES[self.size]))

    def read(self) -> dict[str, pa.Table]:
        files = [file for file in source_files(DOC_SIZES[self.size]) if file.module in THEME_OF]
        rows = distinct(rows_of(files, self._rows))
        train_labels = {row.label for row in rows if row.split == "train"}
        return tables([row for row in rows if row.label in train_labels])

    @staticmethod
    def _rows(file: SourceFile) -> list[Row]:
        own = file.module.lower()
        rows = []
        for text, line in docstrings(parse(file.text())):
            tokens = [OWN_NAME if token.lower() == own else token for token in TOKEN.findall(text)]
            if len(tokens) >= MIN_DOC_TOKENS:
                rows.append(Row(split_of(file.name), tokens, THEME_OF[file.module], None, f"{file.name}:{line}"))
        return rows


@dataclass(frozen=True, kw_only=True)
class StdlibWords:
    """A language modelling corpus of words: docstrings, and the paragraphs of `pydoc`'s help topics if it has any.

    Among rows with the same tokens only the first is kept, in the order train, valid, test. Topics are assigned to
    splits and sizes in the same way as files.

    Args:
        name: the data set's name in messages and records.
        size: part of the library that is read.
    """

    name: str
    size: SizeName

    def _files(self) -> list[SourceFile]:
        help_texts = [read(TOPICS)] if (library() / TOPICS).is_file() else []
        return source_files(DOC_SIZES[self.size]) + help_texts

    def fingerprint(self) -> str:
        return fingerprint({"corpus": "words", "size": self.size}, self._files())

    def read(self) -> dict[str, pa.Table]:
        return tables(distinct(rows_of(self._files(), self._rows)))

    def _rows(self, file: SourceFile) -> list[Row]:
        tree = parse(file.text())
        texts = [(file.name, text, line) for text, line in docstrings(tree)]
        if file.name == TOPICS:
            paragraphs = ((f"{TOPICS}#{topic}", text, line) for topic, text, line in topics(tree))
            texts = [row for row in paragraphs if place("size", row[0]) < DOC_SIZES[self.size].share]
        rows = (Row(split_of(unit), TOKEN.findall(text), None, None, f"{unit}:{line}") for unit, text, line in texts)
        return [row for row in rows if row.tokens]


@dataclass(frozen=True, kw_only=True)
class StdlibChars:
    """A language modelling corpus of characters: lines of source code, with indentation, without line ends.

    Blank lines, trailing white space and duplicate files are ignored. Lines that occur in several files are kept.

    Args:
        name: the data set's name in messages and records.
        size: part of the library that is read.
    """

    name: str
    size: SizeName

    def fingerprint(self) -> str:
        return fingerprint({"corpus": "chars", "size": self.size}, source_files(CODE_SIZES[self.size]))

    def read(self) -> dict[str, pa.Table]:
        files = first_of(source_files(CODE_SIZES[self.size]), lambda f: split_of(f.name), lambda f: f.content)
        return tables(rows_of(files, self._rows))

    @staticmethod
    def _rows(file: SourceFile) -> list[Row]:
        lines = ((number, line.rstrip()) for number, line in enumerate(file.text().split("\n"), start=1))
        split = split_of(file.name)
        return [Row(split, list(line), None, None, f"{file.name}:{number}") for number, line in lines if line]


def rows_of(files: Iterable[SourceFile], rows: Callable[[SourceFile], list[Row]]) -> list[Row]:
    """Return the rows of all files that the running Python can parse."""
    all_rows = []
    with collector_paused():
        for file in files:
            try:
                all_rows += rows(file)
            except SyntaxError:
                continue
    return all_rows


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector: trees and rows are many objects without cycles, and it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def distinct(rows: list[Row]) -> list[Row]:
    """Return the rows without duplicates: no two have the same tokens, neither within nor across splits."""
    return first_of(rows, lambda row: row.split, lambda row: tuple(row.tokens))


def first_of(items: Iterable[T], split: Callable[[T], str], key: Callable[[T], Hashable]) -> list[T]:
    """Return the first item with each key, in the order train, valid, test."""
    first: dict[Hashable, T] = {}
    for item in sorted(items, key=lambda item: SPLITS.index(split(item))):
        first.setdefault(key(item), item)
    return list(first.values())


def tables(rows: list[Row]) -> dict[str, pa.Table]:
    """Return one table per split."""
    return {split: table([row for row in rows if row.split == split]) for split in SPLITS}


def table(rows: list[Row]) -> pa.Table:
    """Return a table with the columns `tokens`, `label` or `tags` if the rows have them, and `origin`."""
    offsets = np.cumsum([0, *(len(row.tokens) for row in rows)])
    columns = {"tokens": list_column(flat(row.tokens for row in rows), offsets)}
    if rows and rows[0].label is not None:
        columns["label"] = pa.array([row.label for row in rows], pa.string())
    if rows and rows[0].tags is not None:
        columns["tags"] = list_column(flat(row.tags for row in rows if row.tags is not None), offsets)
    columns["origin"] = pa.array([row.origin for row in rows], pa.string())
    return pa.table(columns)


def flat(lists: Iterable[list[str]]) -> pa.Array:
    return pa.array(list(chain.from_iterable(lists)), pa.string())
