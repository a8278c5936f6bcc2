"""What text for a finished model is read as, and what answers are written as, whatever the format.

Shapes: L lines of a passage, B rows (examples) of it, N tokens in all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.text.formats.reader import Passage

STRINGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Answers:
    """What a model says of the rows of a passage.

    Attributes:
        strings: (B,) labels, or lists of one tag a token.
        probability: the same of float32, 0 to 1; None: not to be written.
    """

    strings: pa.Array
    probability: pa.Array | None


@dataclass(frozen=True)
class Parsed:
    """The rows of a passage.

    Attributes:
        table: a list<string> column for each that features are made of, with a row an example.
        places: the line, counted from 0, of each row (B,); of each token (N,) where a token has a line.
    """

    table: pa.Table
    places: IntArray


class TextFormat(Protocol):
    """A way to write text down."""

    def may_end(self, line: str) -> bool:
        """Whether no row goes on behind this line."""
        ...

    def check(self, columns: Collection[str], answer: Literal["label", "tags"]) -> None:
        """Complain if the format has no such columns, or no room for such answers.

        Raises:
            HydromelError: it has not.
        """
        ...

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        """The passage's rows.

        Raises:
            HydromelError: malformed text, with its line.
        """
        ...

    def write(self, passage: Passage, parsed: Parsed, answers: Answers) -> list[str]:
        """(L,) the passage's lines with the answers of its rows."""
        ...


@runtime_checkable
class HasTextFormat(Protocol):
    """A corpus whose files are columns or JSON: text for its models is, too, unless the user says otherwise."""

    def text_format(self) -> TextFormat: ...


def spaced(text: str) -> list[str]:
    """Tokens between runs of U+0020, as data sets are read; other white space stays inside tokens."""
    return [token for token in text.split(" ") if token]


def joined(values: pa.Array) -> pa.Array:
    """(B,) strings as they are, or lists of them as strings with spaces between."""
    return pc.binary_join(values, " ") if pa.types.is_list(values.type) else values


def written(probability: pa.Array) -> pa.Array:
    """Numbers, or lists of them, as strings with 4 decimals."""
    if pa.types.is_list(probability.type):
        return pa.ListArray.from_arrays(probability.offsets, written(probability.values))
    return pa.array([f"{one:.4f}" for one in probability.to_pylist()], pa.string())


def put(lines: list[str], places: IntArray, texts: pa.Array) -> list[str]:
    """`lines` with `texts` at these places."""
    for place, text in zip(places.tolist(), texts.to_pylist(), strict=True):
        lines[place] = text
    return lines
