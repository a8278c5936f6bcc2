"""Column files: a token a line."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.text.formats.base import Answers, Parsed, put, written
from runner.text.formats.reader import Passage

Separator = Literal["tab", "space"]
Mask = npt.NDArray[np.bool_]
MARKS = {"tab": "\t", "space": " "}
WHITE = " \t\v\f\r"  # lines of these alone are blank


@dataclass
class Columns:
    """A token a line, its fields in columns, a blank line between rows; tags become the last column. Other lines stay.

    Args:
        separator: between columns: one `tab`, or `space` for any run of spaces.
        columns: name -> place from 0, negative from the right.
        comment_prefix: lines that begin so hold no token (None: none).
        docstart: lines that begin so end a row, as blank ones do (None: none).
        other: pattern (RE2) of the begin of lines that hold no token of the sentence and yet have columns; their tag
            is `_` (None: none).
    """

    separator: Separator
    columns: dict[str, int]
    comment_prefix: str | None = None
    docstart: str | None = None
    other: str | None = None
    width: int | None = field(default=None, init=False)  # of all lines; that of the first

    def may_end(self, line: str) -> bool:
        return not line.strip(WHITE) or (self.docstart is not None and line.startswith(self.docstart))

    def check(self, columns: Collection[str], answer: Literal["label", "tags"]) -> None:
        if answer == "label":
            raise HydromelError("--format columns has a line a token, but this run labels rows; use lines or jsonl")
        for column in columns:
            if column not in self.columns:
                raise HydromelError(f"this run reads the column '{column}' too; name its place with --columns")

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        lines = pa.array(passage.lines, pa.string())
        ends = _mask(pc.equal(pc.ascii_trim(lines, WHITE), ""))
        if self.docstart is not None:
            ends |= _mask(pc.starts_with(lines, self.docstart))
        places = np.flatnonzero(~ends & ~self._without_token(lines))
        fields = self._fields(passage, lines, places)
        flat = {name: self._column(passage, fields, places, name) for name in columns}
        row = np.cumsum(ends)[places]
        offsets = pa.array(np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(places)), pa.int32())
        return Parsed(pa.table({name: pa.ListArray.from_arrays(offsets, each) for name, each in flat.items()}), places)

    def write(self, passage: Passage, parsed: Parsed, answers: Answers) -> list[str]:
        mark = MARKS[self.separator]
        said = [answers.strings.flatten()]
        if answers.probability is not None:
            said.append(written(answers.probability).flatten())
        lines = pa.array(passage.lines, pa.string())
        all_lines = list(passage.lines)
        for place in np.flatnonzero(self._other(lines)):
            all_lines[place] += mark + mark.join("_" * len(said))
        old = lines.take(pa.array(parsed.places))
        return put(all_lines, parsed.places, pc.binary_join_element_wise(old, *said, mark))

    def _without_token(self, lines: pa.Array) -> Mask:
        """(L,) comments, and lines of columns that are no token of the sentence."""
        if self.comment_prefix is None:
            return self._other(lines)
        return self._other(lines) | _mask(pc.starts_with(lines, self.comment_prefix))

    def _other(self, lines: pa.Array) -> Mask:
        if self.other is None:
            return np.zeros(len(lines), dtype=bool)
        return _mask(pc.match_substring_regex(lines, f"^{self.other}"))

    def _fields(self, passage: Passage, lines: pa.Array, places: IntArray) -> pa.ListArray:
        """(N,) lists of as many strings as the first line of the text has."""
        chosen = lines.take(pa.array(places))
        if self.separator == "tab":
            fields = pc.split_pattern(chosen, "\t")
        else:
            fields = pc.split_pattern_regex(pc.utf8_trim(chosen, " "), " +")
        widths = fields.value_lengths().to_numpy(zero_copy_only=False)
        if self.width is None and len(widths):
            self._check_tabs(passage, chosen, places, int(widths[0]))
            self.width = int(widths[0])
        odd = np.flatnonzero(widths != self.width)
        if len(odd):
            raise HydromelError(
                f"{passage.at(places[odd[0]])}: {widths[odd[0]]} {self.separator}-separated columns; lines before have "
                f"{self.width}"
            )
        return fields

    def _check_tabs(self, passage: Passage, lines: pa.Array, places: IntArray, width: int) -> None:
        """Raises HydromelError for lines of tokens, or columns with spaces between, that would be a token each."""
        spaced = _mask(pc.match_substring(pc.ascii_trim(lines, WHITE), " "))
        if self.separator == "tab" and width == 1 and 2 * np.count_nonzero(spaced) > len(spaced):
            raise HydromelError(
                f"{passage.at(places[int(spaced.argmax())])}: no tab, but spaces; use --format lines for lines of "
                "tokens, or --separator space for columns"
            )

    def _column(self, passage: Passage, fields: pa.ListArray, places: IntArray, name: str) -> pa.Array:
        """(N,) strings."""
        place = self.columns[name]
        if self.width is None:  # no token yet
            return pa.array([], pa.string())
        if not -self.width <= place < self.width:
            raise HydromelError(
                f"{passage.at(places[0])}: {self.width} {self.separator}-separated columns, but {name} is asked for in "
                f"column {place}, counted from 0 (--separator, --columns)"
            )
        found = pc.list_element(fields, place % self.width)
        empty = np.flatnonzero(_mask(pc.equal(found, "")))
        if len(empty):
            raise HydromelError(f"{passage.at(places[empty[0]])}: column {place} ({name}) is empty")
        return found


def _mask(booleans: pa.Array) -> Mask:
    found: Mask = booleans.to_numpy(zero_copy_only=False)
    return found.copy()  # Arrow's memory is read-only
