"""Column files (CoNLL): one token per line with its fields in columns, and a blank line between sentences."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError
from runner.common.types import Name, Position, PositiveInt, Text
from runner.text.arrow import array, example_table, is_empty, lengths_of, list_column, mask_of, refuse
from runner.text.formats.columns import MARKS, Columns, LineKinds, Separator, split_columns
from tasks.datasets.base import HasTags, LocalCorpus
from tasks.datasets.files import TextFile, read_text
from tasks.datasets.split import GROUP, path_of
from tasks.datasets.text_blocks import BlockEnd, last_blank_line, text_blocks
from tasks.spans.finding import TagRules, check_tags

DOCSTART = "-DOCSTART-"


@dataclass(frozen=True)
class Cells:
    """The token lines of a column file."""

    file: TextFile
    fields: pa.ListArray  # (N,) lists of `width` strings
    width: int  # number of columns, the same on every line
    line: IntArray  # (N,) 1-based line numbers
    sentence: IntArray  # (N,) sentence numbers, non-decreasing
    notes: Mapping[str, int]  # things left out or decided, and how often

    @classmethod
    def of(
        cls,
        file: TextFile,
        separator: Separator,
        comment_prefix: Text | None,
        skip_docstart: bool,
        width: int | None = None,
    ) -> "Cells":
        """Split a file, or a block of one, into cells; `width` is the number of columns if it is known.

        Blank lines (only white space) and document marks end a sentence; comments stand before one (`LineKinds`).

        Raises:
            HydromelError: there are no token lines, or a line has a different number of columns, an empty one, or one
                with a carriage return in it.
        """
        kinds = LineKinds.of(file.lines, separator, comment_prefix, DOCSTART if skip_docstart else None, width)
        kept = kinds.tokens
        if not kept.any():
            raise HydromelError(f"{file.path}: no examples in the file")
        lines = file.lines.filter(pa.array(kept))
        fields = split_columns(lines, separator)
        line = file.numbers[kept]
        widths = lengths_of(fields)
        width = width or int(np.bincount(widths).argmax())

        def wrong_width(row: int) -> str:
            hint = ""
            if lines[row].as_py().startswith(comment_prefix or "#"):
                within = "a comment stands before a sentence, not within it"
                hint = f"; {within}" if comment_prefix else "; if it is a comment, set dataset.comment_prefix='#'"
            return (
                f"{file.at(line[row])}: {widths[row]} {separator}-separated columns; the file's other lines have "
                f"{width}{hint}"
            )

        refuse(widths != width, wrong_width)
        refuse(
            is_empty(fields.flatten()),
            lambda field: f"{file.at(line[field // width])}: column {field % width} is empty",
        )
        if "\r" in file.text:
            refuse(
                mask_of(pc.match_substring(fields.flatten(), "\r")),
                lambda field: f"{file.at(line[field // width])}: column {field % width} has a carriage return in it",
            )
        notes = {
            f"document marks ({DOCSTART}) left out": kinds.documents,
            f"lines of tokens that start like comments, with {comment_prefix}": kinds.like_comments,
        }
        # A blank line ends a sentence, so the number of blank lines before a line numbers its sentence.
        return cls(file, fields, width, line, np.cumsum(kinds.ends, dtype=np.int64)[kept], notes)

    def column(self, place: int) -> pa.StringArray:
        """Return a column (N,); negative positions count from the right.

        Raises:
            HydromelError: there is no such column.
        """
        if not -self.width <= place < self.width:
            raise HydromelError(
                f"{self.file.path}: there is no column {place}; the file has {self.width} columns, use 0 to "
                f"{self.width - 1} or -{self.width} to -1 (dataset.columns)"
            )
        return pc.list_element(self.fields, place % self.width)

    def keep(self, mask: BoolArray) -> "Cells":
        """Return the cells of the lines selected by `mask` (N,)."""
        fields = self.fields.filter(pa.array(mask))
        return replace(self, fields=fields, line=self.line[mask], sentence=self.sentence[mask])

    def lines_of(self, table: pa.Table) -> pa.ListArray:
        """Return the original lines of the sentences of a table that was read from this file.

        Raises:
            HydromelError: a sentence of the table does not start at its line, so the file has changed.
        """
        offsets = self.offsets()
        # Sentences are found by their first line, so the table may be a part of the file in any order.
        first_lines, table_lines = self.line[offsets[:-1]], table["line"].to_numpy()
        rows = np.searchsorted(first_lines, table_lines).clip(max=len(first_lines) - 1)
        refuse(
            first_lines[rows] != table_lines,
            lambda row: (
                f"{self.file.at(table_lines[row])}: no sentence starts here any more; the file has changed "
                "since it was read"
            ),
        )
        lines = self.file.lines.take(pa.array(self.line - 1 - self.file.before))
        return list_column(lines, offsets).take(pa.array(rows))

    def offsets(self) -> IntArray:
        """Return the start of each sentence among the N lines, and N: (B+1,)."""
        return np.append(np.flatnonzero(np.diff(self.sentence, prepend=-1)), len(self.line))

    def noting(self, notes: Mapping[str, int]) -> "Cells":
        """Return the same cells with further notes."""
        return replace(self, notes={**self.notes, **notes})

    def table(self, columns: Mapping[Name, pa.Array], rules: TagRules) -> pa.Table:
        """Return a table with one row per sentence and one list column for each of `columns` (N,); tags are checked."""
        offsets = self.offsets()
        values = dict(columns)
        if "tags" in values:
            values["tags"] = pc.utf8_trim_whitespace(values["tags"])
            check_tags(values["tags"], offsets, rules, lambda place: self.file.at(self.line[place]))
        lists = {name: list_column(value, offsets) for name, value in values.items()}
        return example_table(lists, self.line[offsets[:-1]], self.file.path, self.notes)


@dataclass(kw_only=True)
class TokenLines(LocalCorpus):
    """A reader of files with one token per line, to whose lines predictions can be appended."""

    @abstractmethod
    def cells(self, file: TextFile, width: int | None = None) -> Cells:
        """Return the token lines of a file, or of a block of one; `width` is the number of columns if it is known."""

    @abstractmethod
    def parse_cells(self, cells: Cells, split: str) -> pa.Table:
        """Return token lines as a table of examples."""

    @property
    def block_end(self) -> BlockEnd | None:
        return last_blank_line

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self.parse_cells(self.cells(file), split)

    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        for cells in self._cells_of(path):
            yield self.parse_cells(cells, split)

    def _cells_of(self, path: Path) -> Iterator[Cells]:
        """Yield the token lines of a file in blocks, which have the number of columns of the first one."""
        if self.block_end is None:
            yield self.cells(read_text(path, self.encoding))
            return
        width = None
        for block in text_blocks(path, self.encoding, self.block_end):
            cells = self.cells(block, width)
            width = cells.width
            yield cells

    @abstractmethod
    def text_format(self) -> Columns:
        """Return the format of this data set's files, the default for text given to models trained on it."""

    def token_lines(self, table: pa.Table) -> tuple[pa.ListArray, str]:
        """Return the original line of each token of a table from `read`, and the separator of its columns.

        Raises:
            HydromelError: the file has changed since.
        """
        mark = MARKS[self.text_format().separator]
        if "origin" not in table.column_names:
            return self._lines_of(table, path_of(table)), mark
        paths = pc.replace_substring_regex(array(table["origin"]), ":[0-9]+$", "").dictionary_encode()
        rows = [np.flatnonzero(paths.indices.to_numpy() == number) for number in range(len(paths.dictionary))]
        of_files = zip(rows, paths.dictionary.to_pylist(), strict=True)
        lines = pa.concat_arrays([self._lines_of(table.take(pa.array(own)), Path(path)) for own, path in of_files])
        return lines.take(pa.array(np.argsort(np.concatenate(rows)))), mark

    def _lines_of(self, table: pa.Table, path: Path) -> pa.ListArray:
        """Return the lines of each row of a table that was read from a file; raises as `token_lines`."""
        numbers = table["line"].to_numpy()
        found, rows = [], []
        for cells in self._cells_of(path):
            last = cells.file.before + len(cells.file.lines)
            own = np.flatnonzero((numbers > cells.file.before) & (numbers <= last))
            if len(own):
                found.append(cells.lines_of(table.take(pa.array(own))))
                rows.append(own)
        order = np.concatenate([*rows, np.flatnonzero(numbers > last)])
        if sum(map(len, rows)) < len(numbers):
            raise HydromelError(
                f"{path}: the file has no line {numbers[order[-1]]} any more; it has changed since it was read"
            )
        return pa.concat_arrays(found).take(pa.array(np.argsort(order)))


@dataclass(kw_only=True)
class ColumnsFile(HasTags, TokenLines):
    """A reader of tagged text in columns.

    Args:
        separator: separator between columns: one `tab`, or `space` for any run of spaces.
        columns: name -> column from 0, negative from the right; must contain `tokens`, and `tags` for tagging.
        skip_docstart: leave out lines whose first word is `-DOCSTART-`, and report their number.
        group_documents: keep the sentences between two such lines in one split when splits are cut from the training
            set; needs `skip_docstart`.
        comment_prefix: leave out lines that start with this prefix before a sentence (null: none); a line with the
            columns of a token is a token.
        width: number of columns of the training file, recorded by the run. A text to predict may have another number;
            negative positions then mean the same columns as in the training file.
    """

    separator: Separator
    columns: dict[Name, Position]
    skip_docstart: bool
    group_documents: bool
    comment_prefix: Text | None
    width: PositiveInt | None = None

    def __post_init__(self) -> None:
        if "tokens" not in self.columns or {"line", "label", GROUP} & set(self.columns):
            raise HydromelError(
                f"dataset.columns names {', '.join(self.columns) or 'nothing'}; "
                "it must name tokens, and may name neither line nor label nor group"
            )
        if self.group_documents and not self.skip_docstart:
            raise HydromelError("dataset.group_documents=true needs dataset.skip_docstart=true, which finds documents")

    @property
    def block_end(self) -> BlockEnd | None:
        return None if self.group_documents else last_blank_line

    def parse_cells(self, cells: Cells, split: str) -> pa.Table:
        file = cells.file
        columns = {name: cells.column(place) for name, place in self.columns.items()}
        if "tags" in columns:
            tags = self.columns["tags"] % cells.width
            if same := [name for name, place in self.columns.items() if name != "tags" and place % cells.width == tags]:
                raise HydromelError(
                    f"{file.at(cells.line[0])}: {same[0]} and tags are the same column, {tags} of {cells.width}; "
                    "set different positions in dataset.columns, or another dataset.separator (tab, space)"
                )
        table = cells.table(columns, self.tag_rules)
        if self.group_documents and split == "train":
            table = table.append_column(GROUP, _documents(file, table))
        return table

    def describe_files(self) -> dict[str, int]:
        if self.width is not None or min(place for name, place in self.columns.items() if name != "tags") >= 0:
            return {}
        return {"width": next(self._cells_of(self.paths()["train"][0])).width}

    def text_format(self) -> Columns:
        columns = self.columns
        if self.width is not None:
            columns = {name: place % self.width for name, place in columns.items()}
        return Columns(self.separator, columns, self.comment_prefix, DOCSTART if self.skip_docstart else None)

    def cells(self, file: TextFile, width: int | None = None) -> Cells:
        return Cells.of(file, self.separator, self.comment_prefix, self.skip_docstart, width)


def _documents(file: TextFile, table: pa.Table) -> pa.Array:
    """Return a name of each sentence's document, (B,): its number, and its first sentence.

    Names are made of the content alone, so that the file's name does not change the cut; with the first sentence,
    documents of several files differ.

    Raises:
        HydromelError: the file has no document marks.
    """
    marks = file.numbers[mask_of(pc.match_substring_regex(file.lines, rf"^\s*{DOCSTART}(\s|$)"))]
    if not len(marks):
        raise HydromelError(f"{file.path}: no line with {DOCSTART}; use dataset.group_documents=false")
    numbers, first, document = np.unique(
        np.searchsorted(marks, table["line"].to_numpy()), return_index=True, return_inverse=True
    )
    texts = pc.binary_join(array(table["tokens"]).take(pa.array(first)), " ")
    names = pc.binary_join_element_wise(pa.array(numbers.astype(str)), texts, " ")
    return names.take(pa.array(document))
