"""Column files: one token per line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import is_empty, lengths_of, list_column, mask_of, offsets_of, split_on_spaces
from runner.text.formats.base import Parsed, PassagePredictions, escaped, format_numbers, replace_lines
from runner.text.formats.reader import Passage, grouped

Separator = Literal["tab", "space"]
MARKS = {"tab": "\t", "space": " "}
WHITE = " \t\v\f\r"  # a line of only these characters is blank


@dataclass(frozen=True)
class LineKinds:
    """The kind of each of L lines of a column file."""

    ends: BoolArray  # (L,) blank lines and document marks, which end a sentence
    tokens: BoolArray  # (L,) lines with the columns of a token
    documents: int  # number of document marks
    like_comments: int  # number of lines of tokens that start with the prefix of comments

    @classmethod
    def of(
        cls, lines: pa.Array, separator: Separator, comment_prefix: str | None, docstart: str | None, width: int | None
    ) -> LineKinds:
        """Tell tokens from comments, which stand before a sentence and do not have the `width` columns of tokens.

        Any other line with the prefix of comments counts as a token; its number of columns is then an error. If `width`
        is None, it is that of most other lines.
        """
        ends = is_empty(pc.ascii_trim_whitespace(lines))
        documents = np.zeros(len(lines), dtype=np.bool_)
        if docstart is not None:
            documents = mask_of(pc.match_substring_regex(lines, _starting(docstart).pattern))
            ends |= documents
        tokens, like_comments = ~ends, 0
        if comment_prefix is not None:
            prefixed = tokens & mask_of(pc.starts_with(lines, comment_prefix))
            places, sure = np.flatnonzero(prefixed), np.flatnonzero(tokens & ~prefixed)
            if width is None and len(sure):
                width = int(np.bincount(lengths_of(split_columns(lines.take(pa.array(sure)), separator))).argmax())
            candidates = lines.take(pa.array(places))
            widths = lengths_of(split_columns(candidates, separator))
            # A comment is text: it has no tab, and more than one word.
            has_columns = widths == width if width is not None else (widths > 1) & (separator == "tab")
            if width == 1:
                has_columns &= lengths_of(split_on_spaces(candidates)) == 1
            like_comments = int(np.count_nonzero(has_columns))
            tokens[places[~has_columns]] = False
            order = np.arange(len(lines))
            last_end, last_token = (np.maximum.accumulate(np.where(mask, order, -1)) for mask in (ends, tokens))
            tokens |= prefixed & (last_token > last_end)
        return cls(ends, tokens, int(np.count_nonzero(documents)), like_comments)


def _starting(word: str) -> re.Pattern[str]:
    """Return a pattern of lines with this first word."""
    return re.compile(rf"^{re.escape(word)}([ \t\v\f\r]|$)")


def split_columns(lines: pa.Array, separator: Separator) -> pa.ListArray:
    """Return the columns of each line, without white space (ASCII) around them."""
    fields = pc.split_pattern(lines, "\t") if separator == "tab" else split_on_spaces(lines)
    return list_column(pc.ascii_trim_whitespace(fields.flatten()), offsets_of(fields))


@dataclass
class Columns:
    """A format with one token per line, fields in columns, and a blank line between rows.

    Predicted tags are appended as the last column; all other lines are copied unchanged. White space around the columns
    of a line does not belong to them.

    Args:
        separator: separator between columns: one `tab`, or `space` for any run of spaces.
        columns: name -> column from 0, negative from the right.
        comment_prefix: prefix of lines without a token before a row (None: none).
        docstart: first word of lines that end a row, like blank lines (None: none).
        other: pattern (RE2) of the start of lines that have columns but hold no token of the sentence; they get the
            tag `_` (None: none).
    """

    separator: Separator
    columns: dict[str, int]
    comment_prefix: str | None = None
    docstart: str | None = None
    other: str | None = None
    width: int | None = field(default=None, init=False)  # columns per line, set by the first line

    def groups(self, lines: Iterable[str], name: str) -> Iterator[list[str]]:
        return grouped(lines, name, self._is_end)

    def _is_end(self, line: str) -> bool:
        return not line.strip(WHITE) or (self.docstart is not None and bool(_starting(self.docstart).match(line)))

    def check(self, columns: Collection[str], predicted: str) -> None:
        if predicted != "tags":
            raise HydromelError(
                f"--format columns holds one prediction per token, but this run predicts one {predicted} per row; use "
                "--format lines or jsonl"
            )
        for column in columns:
            if column not in self.columns:
                raise HydromelError(f"this run also needs the column '{column}'; give its position with --columns")

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        lines = pa.array(passage.lines, pa.string())
        kinds = LineKinds.of(lines, self.separator, self.comment_prefix, self.docstart, self.width)
        ends = kinds.ends
        places = np.flatnonzero(kinds.tokens & ~self._other(lines))
        fields = self._fields(passage, lines, places)
        flat = {name: self._column(passage, fields, places, name) for name in columns}
        # A row ends at a blank line, so the number of blank lines before a token numbers its row.
        row = np.cumsum(ends)[places]
        offsets = np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(places))
        lists = {name: list_column(values, offsets) for name, values in flat.items()}
        return Parsed(pa.table(lists), places)

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        mark = MARKS[self.separator]
        new_columns = [escaped(predictions.values.flatten(), mark)]
        if predictions.probability is not None:
            new_columns.append(format_numbers(predictions.probability).flatten())
        lines = pa.array(passage.lines, pa.string())
        all_lines = list(passage.lines)
        for place in np.flatnonzero(self._other(lines)):
            all_lines[place] += mark + mark.join("_" * len(new_columns))
        token_lines = lines.take(pa.array(parsed.places))
        return replace_lines(all_lines, parsed.places, pc.binary_join_element_wise(token_lines, *new_columns, mark))

    def _other(self, lines: pa.Array) -> BoolArray:
        """Return a mask (L,) of the lines with columns but without a token of the sentence."""
        if self.other is None:
            return np.zeros(len(lines), dtype=bool)
        return mask_of(pc.match_substring_regex(lines, f"^{self.other}"))

    def _fields(self, passage: Passage, lines: pa.Array, places: IntArray) -> pa.ListArray:
        """Return the fields of each token line: (N,) lists, all as long as that of the text's first line."""
        token_lines = lines.take(pa.array(places))
        fields = split_columns(token_lines, self.separator)
        widths = lengths_of(fields)
        if self.width is None and len(widths):
            self._check_tabs(passage, token_lines, places, int(widths[0]))
            self.width = int(widths[0])
        odd = np.flatnonzero(widths != self.width)
        if len(odd):
            raise HydromelError(
                f"{passage.at(places[odd[0]])}: {widths[odd[0]]} {self.separator}-separated columns; earlier lines "
                f"have {self.width}"
            )
        return fields

    def _check_tabs(self, passage: Passage, lines: pa.Array, places: IntArray, width: int) -> None:
        """Raise a HydromelError for tab-separated text with spaces but no tabs: each line would be one token."""
        spaced = mask_of(pc.match_substring(pc.ascii_trim(lines, WHITE), " "))
        if self.separator == "tab" and width == 1 and 2 * np.count_nonzero(spaced) > len(spaced):
            raise HydromelError(
                f"{passage.at(places[int(spaced.argmax())])}: the line has spaces but no tab; use --format lines for "
                "lines of tokens, or --separator space for columns"
            )

    def _column(self, passage: Passage, fields: pa.ListArray, places: IntArray, name: str) -> pa.Array:
        """Return a column as strings (N,)."""
        place = self.columns[name]
        if self.width is None:  # the text has had no token so far
            return pa.array([], pa.string())
        if not -self.width <= place < self.width:
            raise HydromelError(
                f"{passage.at(places[0])}: {self.width} {self.separator}-separated columns, but {name} is column "
                f"{place} (from 0); check --separator and --columns"
            )
        strings = pc.list_element(fields, place % self.width)
        empty = np.flatnonzero(is_empty(strings))
        if len(empty):
            raise HydromelError(f"{passage.at(places[empty[0]])}: column {place} ({name}) is empty")
        return strings
