"""Column files (CoNLL): a token a line, its fields in columns, a blank line between sentences."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import example_table, first_true, is_empty, lengths_of, list_column, mask_of, split_on_spaces
from runner.text.formats.columns import Columns, Separator
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile, read_text
from tasks.datasets.split import path_of
from tasks.datasets.tag_checks import SpanScheme, check_tags

DOCSTART = "-DOCSTART-"


@dataclass(frozen=True)
class Cells:
    """The token lines of a column file.

    Attributes:
        file: where they were read.
        fields: (N,) lists of `width` strings.
        width: number of columns, the same on every line.
        line: (N,) 1-based line numbers.
        sentence: (N,) a number for each sentence; never falls.
    """

    file: TextFile
    fields: pa.ListArray
    width: int
    line: IntArray
    sentence: IntArray

    @classmethod
    def of(cls, file: TextFile, separator: Separator, comment_prefix: str | None, skip_docstart: bool) -> "Cells":
        """Split a file into cells.

        Blank lines (white space alone) and document marks end a sentence; comments do not.

        Raises:
            HydromelError: no token line; a line has another number of columns than most, or an empty column.
        """
        blank = is_empty(pc.ascii_trim_whitespace(file.lines))
        if skip_docstart:
            blank |= mask_of(pc.starts_with(file.lines, DOCSTART))
        kept = ~blank
        if comment_prefix is not None:
            kept &= ~mask_of(pc.starts_with(file.lines, comment_prefix))
        if not kept.any():
            raise HydromelError(f"{file.path}: no examples in the file")
        lines = file.lines.filter(pa.array(kept))
        fields = split_on_spaces(lines) if separator == "space" else pc.split_pattern(lines, "\t")
        line = file.numbers[kept]
        width = _common_width(file, fields, line, separator)
        empty = first_true(is_empty(fields.flatten()))
        if empty is not None:
            raise HydromelError(f"{file.at(line[empty // width])}: column {empty % width} is empty")
        return cls(file, fields, width, line, np.cumsum(blank, dtype=np.int64)[kept])

    def column(self, place: int) -> pa.StringArray:
        """(N,) one column; negative places count from the right.

        Raises:
            HydromelError: there is no such column.
        """
        if not -self.width <= place < self.width:
            raise HydromelError(
                f"{self.file.path}: column {place} was asked for, but the file has {self.width} columns"
            )
        return pc.list_element(self.fields, place % self.width)

    def _check_tags_apart(self, columns: dict[str, int]) -> None:
        """Raises HydromelError where a column that the model reads is the one of its answers."""
        for name, place in columns.items():
            if "tags" in columns and name != "tags" and place % self.width == columns["tags"] % self.width:
                raise HydromelError(
                    f"{self.file.at(self.line[0])}: {name} and tags are the same column, {place % self.width} of "
                    f"{self.width}; dataset.columns says where they are, dataset.separator (tab, space) what parts them"
                )

    def keep(self, mask: npt.NDArray[np.bool_]) -> "Cells":
        """Some of the lines."""
        return Cells(self.file, self.fields.filter(pa.array(mask)), self.width, self.line[mask], self.sentence[mask])

    def lines_of(self, table: pa.Table) -> pa.ListArray:
        """The file's own lines, as they stand there, of the sentences of a table that was read from it.

        Raises:
            HydromelError: no sentence begins where one of the table does: the file is not what it was.
        """
        offsets = self.offsets()
        begins, wanted = self.line[offsets[:-1]], table["line"].to_numpy()
        rows = np.searchsorted(begins, wanted).clip(max=len(begins) - 1)
        gone = first_true(begins[rows] != wanted)
        if gone is not None:
            raise HydromelError(f"{self.file.at(wanted[gone])}: no sentence begins here any more")
        lines = self.file.lines.take(pa.array(self.line - 1))
        return list_column(lines, offsets).take(pa.array(rows))

    def offsets(self) -> IntArray:
        """(B+1,) where sentences begin among the N lines."""
        begins = np.flatnonzero(np.diff(self.sentence, prepend=-1))
        return np.append(begins, len(self.line))

    def table(self, columns: dict[str, int], span_scheme: SpanScheme | None, strict_tags: bool) -> pa.Table:
        """A row a sentence, with one list column for each of `columns` (name -> place)."""
        offsets = self.offsets()
        values = {name: self.column(place) for name, place in columns.items()}
        self._check_tags_apart(columns)
        if "tags" in values:
            check_tags(values["tags"], offsets, span_scheme, strict_tags, lambda place: self.file.at(self.line[place]))
        lists = {name: list_column(value, offsets) for name, value in values.items()}
        return example_table(lists, self.line[offsets[:-1]], self.file.path)


def _common_width(file: TextFile, fields: pa.ListArray, line: IntArray, separator: Separator) -> int:
    """The number of columns of all lines; an error at the first line that differs from most."""
    widths = lengths_of(fields)
    common = int(np.bincount(widths).argmax())
    odd = first_true(widths != common)
    if odd is not None:
        raise HydromelError(
            f"{file.at(line[odd])}: {widths[odd]} {separator}-separated columns; the file's other lines have {common}"
        )
    return common


@dataclass(kw_only=True)
class ColumnsFile(LocalCorpus):
    """Tagged text in columns.

    Args:
        separator: between columns: one `tab`, or `space` for any run of spaces.
        columns: name -> place from 0, negative from the right; `tokens` is needed, and `tags` for tagging.
        span_scheme: of the column `tags` (null: plain tags, such as parts of speech).
        strict_tags: an illegal tag is an error (true), or is kept and counted in the log (false).
        skip_docstart: leave out lines that begin with `-DOCSTART-`.
        comment_prefix: leave out lines that begin so (null: none).
    """

    separator: Separator
    columns: dict[str, int]
    span_scheme: SpanScheme | None
    strict_tags: bool
    skip_docstart: bool
    comment_prefix: str | None

    def __post_init__(self) -> None:
        if "tokens" not in self.columns or {"line", "label"} & set(self.columns):
            raise HydromelError(
                f"dataset.columns names {', '.join(self.columns) or 'nothing'}; "
                "it must name tokens, and neither line nor label"
            )

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self._cells(file).table(self.columns, self.span_scheme, self.strict_tags)

    def token_lines(self, table: pa.Table) -> tuple[pa.ListArray, str]:
        """The file's own line of each token of a table that `read` gave, and what separates columns there.

        Raises:
            HydromelError: the file is not what it was.
        """
        lines = self._cells(read_text(path_of(table), self.encoding)).lines_of(table)
        return lines, "\t" if self.separator == "tab" else " "

    def text_format(self) -> Columns:
        """Text for a model of this data set is written as its files are."""
        return Columns(self.separator, self.columns, self.comment_prefix, DOCSTART if self.skip_docstart else None)

    def _cells(self, file: TextFile) -> Cells:
        return Cells.of(file, self.separator, self.comment_prefix, self.skip_docstart)
