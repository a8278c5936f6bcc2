"""Column files: a token a line."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import HydromelError
from runner.texts.passages import Passage
from runner.texts.text_format import Answers, Parsed, put, spaced, written

Separator = Literal["tab", "space"]
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
        other: pattern of lines that hold no token of the sentence and yet have columns; their tag is `_` (None: none).
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
        ends = np.array([self.may_end(line) for line in passage.lines])
        places = np.array(
            [place for place, line in enumerate(passage.lines) if not ends[place] and self._is_token(line)],
            dtype=np.int64,
        )
        fields = [self._fields(passage, place, columns) for place in places]
        row = np.cumsum(ends)[places]
        offsets = pa.array(np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(places)), pa.int32())
        flat = {name: pa.array([one[self.columns[name]] for one in fields], pa.string()) for name in columns}
        return Parsed(pa.table({name: pa.ListArray.from_arrays(offsets, each) for name, each in flat.items()}), places)

    def write(self, passage: Passage, parsed: Parsed, answers: Answers) -> list[str]:
        mark = MARKS[self.separator]
        said = [answers.strings.flatten()]
        if answers.probability is not None:
            said.append(written(answers.probability).flatten())
        old = pa.array([passage.lines[place] for place in parsed.places], pa.string())
        nothing = mark + mark.join("_" * len(said))
        lines = [f"{line}{nothing}" if self._is_other(line) else line for line in passage.lines]
        return put(lines, parsed.places, pc.binary_join_element_wise(old, *said, mark))

    def _is_token(self, line: str) -> bool:
        is_comment = self.comment_prefix is not None and line.startswith(self.comment_prefix)
        return not is_comment and not self._is_other(line)

    def _is_other(self, line: str) -> bool:
        return self.other is not None and re.match(self.other, line) is not None

    def _fields(self, passage: Passage, place: int, columns: Collection[str]) -> list[str]:
        line = passage.lines[place]
        fields = line.split("\t") if self.separator == "tab" else spaced(line)
        if self.width is None:
            self.width = len(fields)
            for name in columns:
                if not -self.width <= self.columns[name] < self.width:
                    raise HydromelError(
                        f"{passage.at(place)}: {self.width} {self.separator}-separated columns, but {name} is asked "
                        f"for in column {self.columns[name]}, counted from 0 (--separator, --columns)"
                    )
        if len(fields) != self.width:
            raise HydromelError(
                f"{passage.at(place)}: {len(fields)} {self.separator}-separated columns; lines before have {self.width}"
            )
        for name in columns:
            if not fields[self.columns[name]]:
                raise HydromelError(f"{passage.at(place)}: column {self.columns[name]} ({name}) is empty")
        return fields
