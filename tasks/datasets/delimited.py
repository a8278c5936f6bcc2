"""TSV and CSV: one example per row, with label and text in columns given by name or position."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError, unknown
from runner.common.types import Position, PositiveInt, Text
from runner.text.arrow import (
    array,
    example_table,
    is_empty,
    lengths_of,
    list_column,
    offsets_of,
    refuse,
)
from runner.text.formats.delimited import Delimited as DelimitedText
from tasks.datasets.base import LocalCorpus, RawText
from tasks.datasets.files import TextFile, read_text
from tasks.datasets.pairs import TOKENS, PairOf, check_pair
from tasks.datasets.split import GROUP
from tasks.datasets.text_blocks import BlockEnd, text_blocks

Column = Position | Text
Columns = Column | Annotated[list[Column], Field(min_length=1)]


def _delimiter(value: str) -> str:
    if len(value) != 1 or value == '"' or not (value.isprintable() or value == "\t"):
        raise PydanticCustomError("delimiter", "Input should be a tab or a printable character other than a quote")
    return value


def _escape(value: str) -> str:
    if len(value) != 1 or value == '"' or not value.isascii() or not value.isprintable():
        raise PydanticCustomError("escape", "Input should be a printable ASCII character other than a quote")
    return value


Delimiter = Annotated[str, AfterValidator(_delimiter)]
Escape = Annotated[str, AfterValidator(_escape)]
Mark = Annotated[Text, Field(min_length=1)]


def split_rows(file: TextFile, delimiter: str) -> tuple[list[pa.Array], IntArray]:
    """Split rows without quotes and escapes, one per line; return the columns and the 1-based line of each row."""
    fields = pc.split_pattern(file.lines, delimiter)
    widths = lengths_of(fields)
    width = file.first_line.count(delimiter) + 1
    refuse(widths != width, lambda row: wrong_width(file, file.numbers[row], int(widths[row]), width))
    return [pc.list_element(fields, place) for place in range(width)], file.numbers


@dataclass(frozen=True)
class Dialect:
    """The way in which fields are written that may contain delimiters and line ends."""

    delimiter: str
    quoting: bool  # fields may be in double quotes, with quotes inside doubled
    escape: str | None  # makes the next character a plain one

    def rows(self, file: TextFile) -> tuple[list[pa.Array], IntArray]:
        """Split rows into columns; return the columns and the 1-based first line of each row."""
        data = file.text.encode() + b"\n"  # Arrow ignores a single line without a line end
        # The default limit rejects documents above 128 KiB. It is global to the process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), len(data)))
        try:
            width = len(next(self._reader(file))) or 1
        except csv.Error as reason:
            raise HydromelError(f"{file.at(1)}: {reason}") from reason
        strings = {f"f{place}": pa.string() for place in range(width)}
        # A single block: a row may have any length, and Arrow requires a row to fit into a block.
        block = arrow_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, autogenerate_column_names=True)
        syntax = arrow_csv.ParseOptions(
            delimiter=self.delimiter,
            quote_char=self.quoting and '"',
            escape_char=self.escape or False,
            newlines_in_values=True,
            ignore_empty_lines=False,
        )
        types = arrow_csv.ConvertOptions(column_types=strings, strings_can_be_null=False)
        try:
            table = arrow_csv.read_csv(pa.py_buffer(data), block, syntax, types)
        except pa.ArrowInvalid as error:
            raise self._explain(file, error) from error
        columns = [array(column) for column in table.columns]
        # A row takes one line, and one more for each line end inside its fields.
        n_lines = 1 + sum(pc.count_substring(column, "\n").to_numpy().astype(np.int64) for column in columns)
        line = 1 + np.cumsum(n_lines) - n_lines
        if n_lines.sum() != len(file.lines):  # Arrow ends a row at a CR
            raise HydromelError(f"{file.path}: a CR outside quotes, in a file whose lines end in LF; quote the field")
        return columns, line

    def _reader(self, file: TextFile, strict: bool = False) -> Iterator[list[str]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        lines = io.StringIO(file.text, newline="")
        return csv.reader(lines, delimiter=self.delimiter, quoting=quoting, escapechar=self.escape, strict=strict)

    def _explain(self, file: TextFile, error: pa.ArrowInvalid) -> HydromelError:
        """Return an error with the line at which a file is malformed, found row by row since Arrow does not say."""
        width, line = 0, 1
        try:
            for row in self._reader(file, strict=True):
                got = len(row) or 1  # an empty line has one empty field
                width = width or got
                if got != width:
                    return HydromelError(wrong_width(file, line, got, width))
                line += 1 + sum(field.count("\n") for field in row)
        except csv.Error as reason:
            return HydromelError(f"{file.at(line)}: {reason}; double the quotes inside quoted fields")
        return HydromelError(f"{file.path}: {' '.join(str(error).split())[:200]}")


def split_labels(fields: pa.Array, separator: str) -> pa.ListArray:
    """Split fields (B,) into B lists of labels, without spaces around labels, and without empty labels."""
    lists = pc.split_pattern(fields, separator)
    labels = pc.utf8_trim(lists.flatten(), " ")
    kept = ~is_empty(labels)
    return list_column(labels.filter(pa.array(kept)), np.concatenate(([0], np.cumsum(kept)))[offsets_of(lists)])


def wrong_width(file: TextFile, line: int, got: int, width: int) -> str:
    return f"{file.at(line)}: {got} columns; the file's first line has {width}"


@dataclass(kw_only=True)
class Delimited(RawText, LocalCorpus):
    """A reader of labelled text in columns.

    Args:
        delimiter: the character between columns.
        quoting: true: fields may be in double quotes, as spreadsheets write them; false: a quote is a plain character.
        escape: a character before delimiters, quotes and line ends that belong to a field, such as a backslash (null:
            none).
        header: true if the first row names the columns.
        text_columns: a column by name or by position from 0, or several, which are joined by a space. For pairs of
            texts, a mapping of `a` and `b` to the columns of each.
        label_column: column by name or by position from 0 (null: none, for language models).
        label_separator: separator of several labels in that column; spaces around labels are dropped, and an empty
            field has no labels (null: a field is one label).
        group_column: column by name or by position from 0: rows with equal values stay together when splits are cut
            from the training set (null: none).
        width: number of columns of the training file, recorded by the run. A text to predict may have another number;
            negative positions then mean the same columns as in the training file.
    """

    delimiter: Delimiter
    quoting: bool
    escape: Escape | None
    header: bool
    text_columns: Columns | PairOf[Columns]
    label_column: Column | None
    label_separator: Mark | None
    group_column: Column | None
    width: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.escape == self.delimiter:
            raise HydromelError(f"dataset.escape={self.escape} is the delimiter; give another character, or null")
        check_pair(self.text_columns, "dataset.text_columns")

    @property
    def block_end(self) -> BlockEnd | None:
        return None if self.quoting or self.escape is not None else "line"

    def parse(self, file: TextFile, split: str) -> pa.Table:
        columns, line = self._rows(file)
        names = None
        if self.header and file.before:
            names = file.first_line.split(self.delimiter)
        elif self.header:
            names = [column[0].as_py() for column in columns]
            columns, line = [column[1:] for column in columns], line[1:]

        def named(column: Column, key: str) -> pa.Array:
            return columns[_place(column, file, names, len(columns), f"dataset.{key}")]

        def filled(column: Column, what: str) -> pa.Array:
            values = named(column, f"{what}_column")
            hint = "; for several labels per row, or none: task.labels=many dataset.label_separator=MARK"
            hint = hint if what == "label" else ""
            refuse(
                is_empty(values),
                lambda row: f"{file.at(line[row])}: column {column}: the {what} is empty; every row needs one{hint}",
            )
            return values

        def tokens(columns: Columns, key: str) -> pa.ListArray:
            texts = [named(column, key) for column in (columns if isinstance(columns, list) else [columns])]
            return self.split(pc.binary_join_element_wise(*texts, " "))

        if isinstance(self.text_columns, dict):
            table = {name: tokens(self.text_columns[text], f"text_columns.{text}") for text, name in TOKENS.items()}
        else:
            table = {"tokens": tokens(self.text_columns, "text_columns")}
        if self.label_column is not None and self.label_separator is not None:
            table["labels"] = split_labels(named(self.label_column, "label_column"), self.label_separator)
        elif self.label_column is not None:
            table["label"] = filled(self.label_column, "label")
        if self.group_column is not None and split == "train":
            table[GROUP] = filled(self.group_column, "group")
        return example_table(table, line, file.path)

    def _rows(self, file: TextFile) -> tuple[list[pa.Array], IntArray]:
        """Return all columns of a file, and the 1-based first line of each row."""
        if self.quoting or self.escape is not None:
            return Dialect(self.delimiter, self.quoting, self.escape).rows(file.body())
        return split_rows(file.body(), self.delimiter)

    def describe_files(self) -> dict[str, int]:
        places = [place for own in self._text_columns().values() for place in own if isinstance(place, int)]
        if self.width is not None or min(places, default=0) >= 0:
            return {}
        path = self.paths()["train"][0]
        block = next(text_blocks(path, self.encoding, "line")) if self.block_end else read_text(path, self.encoding)
        return {"width": len(self._rows(block)[0])}

    def text_format(self) -> DelimitedText:
        """Return the format of this data set's files, the default for text given to models trained on it."""
        columns = self._text_columns()
        if (width := self.width) is not None:
            columns = {
                name: [place if isinstance(place, str) else place % width for place in own]
                for name, own in columns.items()
            }
        return DelimitedText(self.delimiter, self.quoting, self.escape, self.header, columns, tokenizer=self.tokenizer)

    def _text_columns(self) -> dict[str, list[Column]]:
        """Return the columns of each text, by the name of its tokens."""
        options: PairOf[Columns] = (
            self.text_columns if isinstance(self.text_columns, dict) else {"a": self.text_columns}
        )
        return {TOKENS[text]: [*own] if isinstance(own, list) else [own] for text, own in options.items()}


def _place(column: Column, file: TextFile, names: list[str] | None, width: int, option: str) -> int:
    """Return the index of a column given by name or by position."""
    if isinstance(column, int):
        if -width <= column < width:
            return column
        raise HydromelError(f"{file.at(1)}: {option}: there is no column {column}; the file has {width} columns")
    if names is None:
        raise HydromelError(
            f"{option}: '{column}' is a name, but dataset.header=false; use a position such as 0, or "
            "dataset.header=true"
        )
    if column not in names:
        raise unknown("column", column, names, f"{option}; {file.at(1)}")
    return names.index(column)
