"""Formats with one row per line: text, and JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError
from runner.text.arrow import array, lengths_of
from runner.text.formats.base import (
    DIGITS,
    Parsed,
    PassagePredictions,
    escaped,
    fields_of,
    format_numbers,
    free_name,
    join_lists,
    naming,
    replace_lines,
)
from runner.text.formats.objects import SECOND_TEXT, TOKENS_B, TextFields, table_of_objects
from runner.text.formats.reader import Passage, single
from runner.text.tokenizers import OFFSETS, WHITE_SPACE, WHITESPACE, Tokenizer, with_offsets


@dataclass(frozen=True)
class Lines:
    """A format with one row per line and the tokens of raw text.

    The output has one line per row: the label, the number, or the tags separated by spaces; then, if probabilities are
    written, a tab and the probabilities. Several labels are separated by tabs, each followed by its probability if
    that is written. Blank lines stay blank.
    """

    tokenizer: Tokenizer = WHITESPACE
    label_mark: str | None = None  # words that start with it are labels, not text (None: there are none)

    def groups(self, lines: Iterable[str], name: str) -> Iterator[list[str]]:
        return single(lines)

    def check(self, columns: Collection[str], predicted: str) -> None:
        for column in columns:
            if column not in ("tokens", *OFFSETS):
                other = "csv, tsv or jsonl, which hold both" if column == TOKENS_B else "columns or jsonl"
                raise HydromelError(f"this run also needs the column '{column}'; use --format {other}")

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        texts = pa.array(passage.lines, pa.string())
        if self.label_mark is not None:
            label = f"(^|[{WHITE_SPACE}]){re.escape(self.label_mark)}[^{WHITE_SPACE}]*"
            texts = pc.replace_substring_regex(texts, label, " ")
        spans = self.tokenizer.spans(texts)
        table = pa.table(with_offsets(spans) if OFFSETS[0] in columns else {"tokens": spans.tokens()})
        places = np.flatnonzero(lengths_of(array(table["tokens"])))
        return Parsed(table.take(pa.array(places)), places)

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        if predictions.column == "labels":
            texts = pa.array(map("\t".join, _label_fields(predictions)), pa.string())
        elif predictions.column == "value":
            texts = pa.array([f"{value:.{DIGITS}g}" for value in predictions.values.to_pylist()], pa.string())
        else:
            texts = join_lists(predictions.values)
            if predictions.probability is not None:
                texts = pc.binary_join_element_wise(texts, join_lists(format_numbers(predictions.probability)), "\t")
        return replace_lines([""] * len(passage.lines), parsed.places, texts)


def _label_fields(predictions: PassagePredictions) -> Iterator[list[str]]:
    """Yield the labels of each row, each followed by its probability if that is written."""
    sets = predictions.values
    written = pa.ListArray.from_arrays(sets.offsets, escaped(sets.values)).to_pylist()
    if predictions.probability is None:
        yield from written
        return
    place = {label: number for number, label in enumerate(predictions.labels)}
    for names, labels, row in zip(written, sets.to_pylist(), predictions.probability.to_pylist(), strict=True):
        yield [field for name, label in zip(names, labels, strict=True) for field in (name, f"{row[place[label]]:.4f}")]


@dataclass(frozen=True)
class JsonLines(TextFields):
    """A format with one object per line; predictions are added as a field. Blank lines are kept."""

    # the field of the predictions (None: `free_name`); that of probabilities is `{added}_probability`
    added: str | None = None
    second: TextFields = SECOND_TEXT  # fields of the second text, if rows are pairs
    tokenizer: Tokenizer = WHITESPACE
    taken: set[str] = field(default_factory=set, init=False, compare=False)  # names of the fields of the first object

    def naming(self, name: str, fields: Collection[str]) -> str:
        return f"{naming(name, fields)} names that of the text"

    def groups(self, lines: Iterable[str], name: str) -> Iterator[list[str]]:
        return single(lines)

    def check(self, columns: Collection[str], predicted: str) -> None:
        """Check nothing: a missing column is reported by `parse`, with the line that lacks it."""

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        places = [place for place, line in enumerate(passage.lines) if line.strip()]
        objects = [_object(passage, place) for place in places]
        names = [passage.at(place) for place in places]
        if objects and not self.taken:
            self.taken.update(objects[0])
        table = table_of_objects(objects, names, columns, self, self.second, self.tokenizer)
        return Parsed(table, np.array(places, dtype=np.int64))

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        """Return the original objects, each with the predictions appended as a field."""
        added = fields_of(predictions, self.added or free_name(predictions.column, self.taken))
        lines = list(passage.lines)
        for place, *values in zip(parsed.places, *added.values(), strict=True):
            lines[place] = _with_fields(passage.at(place), lines[place], dict(zip(added, values, strict=True)))
        return lines


def _object(passage: Passage, place: int) -> dict[str, object]:
    try:
        value = json.loads(passage.lines[place])
    except (json.JSONDecodeError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise HydromelError(
            f"{passage.at(place)}: not JSON ({why}); for plain lines of text give --format lines"
        ) from error
    if not isinstance(value, dict):
        raise HydromelError(f"{passage.at(place)}: got {json.dumps(value):.60}; each line must hold one JSON object")
    return value


def _with_fields(at: str, line: str, added: dict[str, object]) -> str:
    """Return the original object with more fields appended, without reformatting it."""
    body = line.rstrip()[:-1].rstrip()
    for name in added:
        # A cheap text search first: parsing every line again would be slow.
        if json.dumps(name) in body and name in json.loads(line):
            raise HydromelError(
                f"{at}: the object already has a field '{name}'; use --field NAME to write predictions to another field"
            )
    comma = "" if body.strip() == "{" else ", "
    return f"{body}{comma}{json.dumps(added, ensure_ascii=False)[1:]}"
