"""The interface of text formats: parsing text for a trained model, and writing its predictions.

Shapes: L lines of a passage, B rows (examples), N tokens in total.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import closest
from runner.text.formats.reader import Passage
from runner.text.tokenizers import WHITESPACE, with_offsets

STRINGS = pa.list_(pa.string())
ESCAPED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
DIGITS = 7  # significant digits of predicted numbers: those of float32


@dataclass(frozen=True)
class PassagePredictions:
    """The predictions of a model for the rows of a passage."""

    column: str  # column of a corpus: label, labels, value or tags
    values: pa.Array  # (B,) entries of that column: labels, sets of labels, numbers, or lists with one tag per token
    # probabilities, float32 from 0 to 1, in the structure of `values`; for sets of labels, lists (B,) with one for each
    # of the `labels`
    probability: pa.Array | None  # None: not written
    labels: tuple[str, ...] = ()
    spans: list[object] | None = None  # (B,) lists of {start, end, label, text}, if they are written


@dataclass(frozen=True)
class Parsed:
    """The rows of a passage."""

    table: pa.Table  # the list<string> columns that the features are computed from, with one row per example
    places: IntArray  # line index from 0 of each row, (B,), or of each token, (N,), in formats with one token per line


def no_rows(columns: Collection[str]) -> Parsed:
    """Return an empty passage with these columns, `OFFSETS` included, in the types that they have otherwise."""
    tokens = pa.array([], STRINGS)
    with_places = with_offsets(WHITESPACE.spans(pa.array([], pa.string())))
    table = pa.table({name: with_places.get(name, tokens) for name in columns})
    return Parsed(table, np.zeros(0, dtype=np.int64))


class TextFormat(Protocol):
    """A format of text files."""

    def groups(self, lines: Iterable[str], name: str) -> Iterator[list[str]]:
        """Yield all lines of the text `name` in groups; no row continues from one group to the next.

        Raises:
            HydromelError: a row that does not end.
        """

    def check(self, columns: Collection[str], predicted: str) -> None:
        """Raise a HydromelError if the format lacks one of these columns or cannot hold predictions of that column."""

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        """Return the rows of a passage; raise a HydromelError that names the line if it is malformed."""

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        """Return the passage's lines (L,) with predictions; raise a HydromelError if a line has no room for them."""


@runtime_checkable
class HasTextFormat(Protocol):
    """A corpus whose file format (columns or JSON) is the default for text given to models trained on it."""

    def text_format(self) -> TextFormat: ...


def free_name(column: str, taken: Collection[str]) -> str:
    """Return the name of the field or column for predictions of a column: its own if the text has no such field."""
    return f"predicted_{column}" if column in taken else column


def naming(name: str, names: Collection[str]) -> str:
    """Return how to say which of the `names` of fields or columns is that of the text, if none of them is `name`."""
    likely = next(iter(names)) if len(names) == 1 else closest(name, names)
    return f"--columns tokens={likely or 'NAME'}"


def fields_of(predictions: PassagePredictions, name: str) -> dict[str, list[object]]:
    """Return the predictions of all rows as JSON values: the field `name`, `{name}_probability` and `spans`."""
    values: list[object] = predictions.values.to_pylist()
    if pa.types.is_floating(predictions.values.type):
        values = [float(f"{value:.{DIGITS}g}") for value in values]
    spans = {} if predictions.spans is None else {"spans": predictions.spans}
    if predictions.probability is None:
        return {name: values, **spans}
    probability: list[object] = []
    for row in predictions.probability.to_pylist():
        rounded = [round(number, 4) for number in row] if isinstance(row, list) else round(row, 4)
        of_labels = isinstance(rounded, list) and predictions.labels
        probability.append(dict(zip(predictions.labels, rounded, strict=True)) if of_labels else rounded)
    return {name: values, f"{name}_probability": probability, **spans}


def cells_of(predictions: PassagePredictions, name: str) -> dict[str, list[str]]:
    """Return `fields_of` predictions as strings: text as it is, all else as JSON."""
    return {
        key: [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        for key, values in fields_of(predictions, name).items()
    }


def join_lists(values: pa.Array) -> pa.Array:
    """Join lists of strings (B,) with spaces, or return plain strings (B,), both `escaped`."""
    if not pa.types.is_list(values.type):
        return escaped(values)
    return pc.binary_join(pa.ListArray.from_arrays(values.offsets, escaped(values.values, " ")), " ")


def escaped(strings: pa.Array, mark: str = "") -> pa.Array:
    """Return strings (N,) that are safe in a line: tabs and line ends become `\\t`, `\\n`, `\\r`.

    So do spaces, as `\\x20`, if they separate the strings of a line (`mark`).
    """
    for special, written in {**ESCAPED, **({" ": "\\x20"} if mark == " " else {})}.items():
        strings = pc.replace_substring(strings, special, written)
    return strings


def format_numbers(probability: pa.Array) -> pa.Array:
    """Format numbers, or lists of numbers, with 4 decimals."""
    if pa.types.is_list(probability.type):
        return pa.ListArray.from_arrays(probability.offsets, format_numbers(probability.values))
    return pa.array([f"{number:.4f}" for number in probability.to_pylist()], pa.string())


def replace_lines(lines: list[str], places: IntArray, texts: pa.Array) -> list[str]:
    """Replace the lines at these places with `texts`, in place; return `lines`."""
    for place, text in zip(places.tolist(), texts.to_pylist(), strict=True):
        lines[place] = text
    return lines
