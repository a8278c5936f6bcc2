"""Built-in corpora: real text on every machine, from the standard library of the Python that runs. No download.

Splits are by file (80 / 10 / 10 % of the files, by a hash of the file's name in the library), so valid and test are
from files that train has not seen, and a file keeps its split when the library grows. What another Python version
makes of them differs; the fingerprint says which it was. Files that the running Python cannot parse are left out.

Every table has a column `origin`, `FILE:LINE` in the library, beside those of its task.
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
MAX_LINE_TOKENS = 200  # a longer logical line is a table of data (18 of 81,525 of CPython 3.11.7)
MIN_DOC_TOKENS = 5  # a shorter docstring says too little of its theme
OWN_NAME = "<module>"


class Row(NamedTuple):
    """One example: its tokens, its label, its tags (None where the task has none) and where it is from."""

    split: str
    tokens: list[str]
    label: str | None
    tags: list[str] | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class StdlibRoles:
    """Tagging: the role of each token in a logical line of source (`roles` says which roles there are).

    Of lines with the same tokens the first is kept, train's before valid's before test's. Lines of more than
    `MAX_LINE_TOKENS` tokens are left out.

    Args:
        name: of the data set, for messages and records.
        size: how much of the library is read.
        span_scheme: of the tags.
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
    """Classification: the theme of the module (`docs.THEMES`) that a docstring is from.

    A token that is the name of the docstring's own top-level module is replaced by `<module>`, whatever its case.
    Docstrings of fewer than `MIN_DOC_TOKENS` tokens are left out, as are, from valid and test, themes that train
    lacks in this Python. Of docstrings with the same tokens the first is kept, train's before valid's before test's.

    Args:
        name: of the data set, for messages and records.
        size: how much of the library is read.
    """

    name: str
    size: SizeName

    def fingerprint(self) -> str:
        return fingerprint({"corpus": "modules", "size": self.size}, source_files(DOC_SIZES[self.size]))

    def read(self) -> dict[str, pa.Table]:
        files = [file for file in source_files(DOC_SIZES[self.size]) if file.module in THEME_OF]
        rows = distinct(rows_of(files, self._rows))
        learnt = {row.label for row in rows if row.split == "train"}
        return tables([row for row in rows if row.label in learnt])

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
    """Language modelling: docstrings, one a row, and the paragraphs of `pydoc`'s help topics, where there are any.

    Of rows with the same tokens the first is kept, train's before valid's before test's. Topics are cut into splits
    and sizes as files are.

    Args:
        name: of the data set, for messages and records.
        size: how much of the library is read.
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
            every = ((f"{TOPICS}#{topic}", text, line) for topic, text, line in topics(tree))
            texts = [row for row in every if place("size", row[0]) < DOC_SIZES[self.size].share]
        rows = (Row(split_of(unit), TOKEN.findall(text), None, None, f"{unit}:{line}") for unit, text, line in texts)
        return [row for row in rows if row.tokens]


@dataclass(frozen=True, kw_only=True)
class StdlibChars:
    """Language modelling: lines of source, every character a token, indentation too; the line end is none.

    Blank lines, white space at line ends, and files with the same contents as one before them are left out. Lines
    that stand in several files stay.

    Args:
        name: of the data set, for messages and records.
        size: how much of the library is read.
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
    """The rows of all files that the running Python can parse."""
    found = []
    with collector_paused():
        for file in files:
            try:
                found += rows(file)
            except SyntaxError:
                continue
    return found


@contextmanager
def collector_paused() -> Iterator[None]:
    """Syntax trees and rows are many objects without cycles: looking for cycles would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def distinct(rows: list[Row]) -> list[Row]:
    """The rows, without those whose tokens an earlier one has: no two are the same, in one split or in two."""
    return first_of(rows, lambda row: row.split, lambda row: tuple(row.tokens))


def first_of(items: Iterable[T], split: Callable[[T], str], key: Callable[[T], Hashable]) -> list[T]:
    """Train's items, then valid's, then test's; of items with the same key the first alone."""
    first: dict[Hashable, T] = {}
    for item in sorted(items, key=lambda item: SPLITS.index(split(item))):
        first.setdefault(key(item), item)
    return list(first.values())


def tables(rows: list[Row]) -> dict[str, pa.Table]:
    """One table a split."""
    return {split: table([row for row in rows if row.split == split]) for split in SPLITS}


def table(rows: list[Row]) -> pa.Table:
    """Columns `tokens`, then `label` or `tags` where the rows have them, and `origin`."""
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
