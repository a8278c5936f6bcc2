"""TSV and CSV: one example per row, with label and text in columns given by name or position."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
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
from tasks.datasets.files import TextFile
from tasks.datasets.pairs import TOKENS, PairOf, check_pair
from tasks.datasets.split import GROUP
from tasks.datasets.text_blocks import BlockEnd, last_line, text_blocks

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


def split_rows(file: TextFile, delimiter: str, width: int) -> tuple[list[pa.Array], IntArray]:
    """Split rows without quotes and escapes, one per line; return the columns and the 1-based line of each row."""
    file = file.body()
    fields = pc.split_pattern(file.lines, delimiter)
    widths = lengths_of(fields)
    refuse(widths != width, lambda row: wrong_width(file, file.numbers[row], int(widths[row]), width))
    return [pc.list_element(fields, place) for place in range(width)], file.numbers


@dataclass(frozen=True)
class Dialect:
    """The way in which fields are written that may contain delimiters and line ends."""

    delimiter: str
    quoting: bool  # fields may be in double quotes, with quotes inside doubled
    escape: str | None  # makes the next character a plain one

    def first_row(self, file: TextFile) -> list[str]:
        """Return the fields of the first row of a text."""
        try:
            return next(self._reader(file)) or [""]
        except csv.Error as reason:
            raise HydromelError(f"{file.at(1)}: {reason}") from reason

    def last_row(self, text: str) -> int:
        """Return the end of the last row that is whole and not empty; 0: there is none."""
        end = self._whole_rows().match(text)
        return end.end() if end else 0

    def rows(self, file: TextFile, width: int) -> tuple[list[pa.Array], IntArray]:
        """Split rows into columns; return the columns and the 1-based first line of each row."""
        file = self._body(file)
        data = file.text.encode() + b"\n"  # Arrow ignores a single line without a line end
        names = [f"f{place}" for place in range(width)]
        # A single block: a row may have any length, and Arrow requires a row to fit into a block.
        block = arrow_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names)
        syntax = arrow_csv.ParseOptions(
            delimiter=self.delimiter,
            quote_char=self.quoting and '"',
            escape_char=self.escape or False,
            newlines_in_values=True,
            ignore_empty_lines=False,
        )
        types = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        try:
            table = arrow_csv.read_csv(pa.py_buffer(data), block, syntax, types)
        except pa.ArrowInvalid as error:
            raise self._explain(file, width, str(error)) from error
        columns = [array(column) for column in table.columns]
        # A row takes one line, and one more for each line end inside its fields.
        n_lines = 1 + sum(pc.count_substring(column, "\n").to_numpy().astype(np.int64) for column in columns)
        if n_lines.sum() != data.count(b"\n"):  # Arrow ends a row at a CR, and leaves out a last one that is not whole
            raise self._explain(file, width, "a CR outside quotes, in a file whose lines end in LF; quote the field")
        return columns, file.before + 1 + np.cumsum(n_lines) - n_lines

    def _whole_rows(self) -> re.Pattern[str]:
        """Return a pattern of as many whole rows as possible, each with the empty ones before it, as Arrow reads them.

        A quote only begins a quoted part at the start of a field. Nothing is matched twice, since all repeats are
        possessive.
        """
        end, escaped = re.escape(self.delimiter), ""
        if self.escape is not None:
            escaped = f"|{re.escape(self.escape)}."
        special = re.escape(self.escape or "")
        field = f"(?:[^{end}\\n{special}]++{escaped})*+"
        if self.quoting:
            field = f'(?:"(?:[^"{special}]++|""{escaped})*+"|(?!")){field}'
        return re.compile(f"(?:(?: *\\n)*+{field}(?:{end}{field})*+\\n)*+", re.DOTALL)

    def _body(self, file: TextFile) -> TextFile:
        """Return the file without empty rows at its end."""
        body = file.body()
        if self.escape is None or not body.text.endswith(self.escape):
            return body
        text = file.text + "\n"  # what looks like the end of the last row may belong to its last field
        place = self.last_row(text)
        return body if text[place:].strip("\n ") else replace(file, text=text[: place - 1])

    def _reader(self, file: TextFile, strict: bool = False) -> Iterator[list[str]]:
        # The default limit rejects documents above 128 KiB. It is global to the process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), len(file.text)))
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        lines = io.StringIO(file.text, newline="")
        return csv.reader(lines, delimiter=self.delimiter, quoting=quoting, escapechar=self.escape, strict=strict)

    def _explain(self, file: TextFile, width: int, otherwise: str) -> HydromelError:
        """Return an error with the line at which a file is malformed, found row by row since Arrow does not say."""
        line = file.before + 1
        try:
            for row in self._reader(replace(file, text=file.text + "\n"), strict=True):
                got = len(row) or 1  # an empty line has one empty field
                if got != width:
                    return HydromelError(wrong_width(file, line, got, width))
                line += 1 + sum(field.count("\n") for field in row)
        except csv.Error as reason:
            return HydromelError(f"{file.at(line)}: {reason}; double the quotes inside quoted fields")
        return HydromelError(f"{file.path}: {' '.join(otherwise.split())[:200]}")


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
    def block_end(self) -> BlockEnd:
        return last_line if self._dialect is None else self._dialect.last_row

    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        first: list[str] = []
        for block in text_blocks(path, self.encoding, self.block_end):
            first = first or self._first_row(block)
            yield self._table(block, split, first)

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self._table(file, split, self._first_row(file))

    def _table(self, file: TextFile, split: str, first: list[str]) -> pa.Table:
        """Return the examples of a block of a file, the first row of which is given."""
        if self._dialect is None:
            columns, line = split_rows(file, self.delimiter, len(first))
        else:
            columns, line = self._dialect.rows(file, len(first))
        names = first if self.header else None
        if self.header and not file.before:
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

    @property
    def _dialect(self) -> Dialect | None:
        """The dialect of rows that a plain split at delimiters and line ends does not read."""
        if not self.quoting and self.escape is None:
            return None
        return Dialect(self.delimiter, self.quoting, self.escape)

    def _first_row(self, file: TextFile) -> list[str]:
        return file.first_line.split(self.delimiter) if self._dialect is None else self._dialect.first_row(file)

    def describe_files(self) -> dict[str, int]:
        places = [place for own in self._text_columns().values() for place in own if isinstance(place, int)]
        if self.width is not None or min(places, default=0) >= 0:
            return {}
        block = next(text_blocks(self.paths()["train"][0], self.encoding, self.block_end))
        return {"width": len(self._first_row(block))}

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
