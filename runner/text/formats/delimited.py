"""CSV and TSV: one row per record, with its fields in columns by name or position."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from runner.common.errors import HydromelError, shortened
from runner.text.formats.base import Parsed, PassagePredictions, cells_of, free_name, naming
from runner.text.formats.reader import MOST_CHARACTERS, Passage
from runner.text.tokenizers import WHITESPACE, Tokenizer

Column = int | str
QUOTE = {csv.QUOTE_MINIMAL: '"', csv.QUOTE_NONE: None}


@dataclass
class Delimited:
    """A format with one row per record; predictions are appended to each record as its last columns.

    A record is one line, or several if a field contains line ends. Blank lines are kept and hold no record.

    Args:
        delimiter: the character between columns.
        quoting: whether fields may be in double quotes.
        escape: a character that takes away the meaning of the next one (None: none).
        header: whether the first record names the columns.
        columns: column of a corpus -> columns of the file, by name or by position from 0, that are joined by a space.
        added: name of the new column in the header (None: that of the predicted column, as `free_name`).
        tokenizer: how texts are split into tokens.
    """

    delimiter: str
    quoting: bool
    escape: str | None
    header: bool
    columns: dict[str, list[Column]]
    added: str | None = None
    tokenizer: Tokenizer = WHITESPACE
    names: list[str] | None = field(default=None, init=False)  # names of the columns, from the header
    width: int | None = field(default=None, init=False)  # number of columns, from the first record
    _header_end: int | None = field(default=None, init=False)  # the header's last line in the passage that has it

    def groups(self, lines: Iterable[str], name: str) -> Iterator[list[str]]:
        group: list[str] = []
        n_lines = 0

        def taken() -> Iterator[str]:
            for line in lines:
                group.append(line)
                yield line

        try:
            for _, n_lines in self._records(taken()):  # noqa: B007
                yield [*group]
                group.clear()
        except csv.Error as error:
            raise HydromelError(
                f"{name}:{n_lines + 1}: {error}; close the quotes of each field, and double quotes inside them"
            ) from error

    @property
    def _quotes(self) -> Literal[0, 3]:
        return csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE

    def check(self, columns: Collection[str], predicted: str) -> None:
        for column in columns:
            if column not in self.columns:
                raise HydromelError(f"this run also needs the column '{column}'; use --format jsonl or columns")

    def missing_in_header(self, line: str) -> str:
        """Return the first of the named columns that a header `line` lacks, empty if it has all."""
        try:
            names, _ = next(self._records([line]), ([], 0))
        except csv.Error:  # it continues in the next line
            return ""
        named = (column for columns in self.columns.values() for column in columns if isinstance(column, str))
        return next((f"column '{column}'" for column in named if column not in names), "")

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        starts, ends, records = [], [], []
        start, self._header_end = 0, None
        for record, end in self._records(passage.lines):
            if record:  # a blank line holds no record
                starts.append(start)
                ends.append(end - 1)
                records.append(record)
            start = end
        if records and self.width is None:
            self.width = len(records[0])
            if self.header:
                self.names, self._header_end = records.pop(0), ends.pop(0)
                del starts[0]
        for place, record in zip(starts, records, strict=True):
            if len(record) != self.width:
                raise HydromelError(
                    f"{passage.at(place)}: {len(record)} columns; the first record has {self.width}{self._hint}"
                )
        table = {}
        for name in columns:
            indices = [] if self.width is None else [self._index(column, passage) for column in self.columns[name]]
            texts = [" ".join(record[index] for index in indices) for record in records]
            table[name] = self.tokenizer.spans(pa.array(texts, pa.string())).tokens()
        return Parsed(pa.table(table), np.array(ends, dtype=np.int64))

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        """Return the original records, each with the predictions appended as columns, and the header with their names.

        Raises:
            HydromelError: the header has such a name already, or a field would need quotes that the format lacks.
        """
        added = cells_of(predictions, self.added or free_name(predictions.column, self.names or ()))
        lines = list(passage.lines)
        if self._header_end is not None and self.names is not None:
            for name in added:
                if name in self.names:
                    raise HydromelError(
                        f"{passage.at(self._header_end)}: there is a column '{name}' already; use --field NAME to "
                        "write predictions to another column"
                    )
            lines[self._header_end] += self._fields(passage.at(self._header_end), added)
        for place, *cells in zip(parsed.places.tolist(), *added.values(), strict=True):
            lines[place] += self._fields(passage.at(place), cells)
        return lines

    def _fields(self, at: str, cells: Iterable[str]) -> str:
        """Return further fields of a record, as text to append to its last line."""
        line = io.StringIO()
        try:
            csv.writer(
                line,
                delimiter=self.delimiter,
                quoting=self._quotes,
                quotechar=QUOTE[self._quotes],
                escapechar=self.escape,
                lineterminator="",
            ).writerow(["", *cells])
        except csv.Error as error:
            raise HydromelError(
                f"{at}: a prediction contains {self.delimiter!r} or a line end, and fields have no quotes "
                f"(dataset.quoting=false); use --to jsonl"
            ) from error
        return line.getvalue()

    def _records(self, lines: Iterable[str]) -> Iterator[tuple[list[str], int]]:
        """Yield the fields of each record, none for a blank line, and the number of lines up to its end."""
        # Python's limit is global to the process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MOST_CHARACTERS))
        ended = (f"{line}\n" for line in lines)
        quotes = self._quotes
        reader = csv.reader(
            ended,
            delimiter=self.delimiter,
            quoting=quotes,
            quotechar=QUOTE[quotes],
            escapechar=self.escape,
            strict=True,
        )
        for record in reader:
            yield record, reader.line_num

    @property
    def _hint(self) -> str:
        """Return the advice for plain lines, if the run reads a single text; else an empty text."""
        return "; for plain lines of text give --format lines" if self.columns.keys() == {"tokens"} else ""

    def _index(self, column: Column, passage: Passage) -> int:
        """Return the position of a column in each record."""
        if isinstance(column, str):
            if self.names is None:
                raise HydromelError(
                    f"{passage.name}: column '{column}' is a name, but dataset.header=false; give positions with "
                    "--columns tokens=0"
                )
            if column not in self.names:
                header = shortened(self.delimiter.join(self.names))
                raise HydromelError(
                    f"{passage.name}: the header, '{header}', has no column '{column}'; "
                    f"{naming(column, self.names)} names that of the text{self._hint}"
                )
            return self.names.index(column)
        if self.width is None or not -self.width <= column < self.width:
            raise HydromelError(
                f"{passage.at(0)}: there is no column {column}; records have {self.width} columns, from 0 (--columns)"
                f"{self._hint}"
            )
        return column
