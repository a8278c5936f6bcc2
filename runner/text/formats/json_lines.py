"""JSON Lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from runner.common.errors import HydromelError, did_you_mean
from runner.text.formats.base import STRINGS, Answers, Parsed, spaced
from runner.text.formats.reader import Passage


@dataclass(frozen=True)
class JsonLines:
    """An object a line, to which a field is added. Blank lines stay.

    Args:
        tokens_field: a list of strings (None: there is none).
        text_field: a string, split on spaces, of objects without `tokens_field` (None: there is none).
        added: name of the field (None: `label` or `tags`); probabilities are `added`_probability.
    """

    tokens_field: str | None
    text_field: str | None
    added: str | None = None

    def may_end(self, line: str) -> bool:
        return True

    def check(self, columns: Collection[str], answer: Literal["label", "tags"]) -> None:
        """A column that is not there is an error of the line that lacks it."""

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        places = [place for place, line in enumerate(passage.lines) if line.strip()]
        objects = [_object(passage, place) for place in places]
        found: dict[str, list[list[str]]] = {name: [] for name in columns}
        for place, one in zip(places, objects, strict=True):
            tokens = self._tokens(passage.at(place), one)
            for name, values in found.items():
                values.append(tokens if name == "tokens" else _strings(passage.at(place), one, name, len(tokens)))
        columns_of_rows = {name: _array(passage, places, values) for name, values in found.items()}
        return Parsed(pa.table(columns_of_rows), np.array(places, dtype=np.int64))

    def write(self, passage: Passage, parsed: Parsed, answers: Answers) -> list[str]:
        """The objects as they stand there, with a further field at their end."""
        name = self.added or ("tags" if pa.types.is_list(answers.strings.type) else "label")
        added = {name: answers.strings.to_pylist()}
        if answers.probability is not None:
            added[f"{name}_probability"] = _rounded(answers.probability)
        lines = list(passage.lines)
        for place, *values in zip(parsed.places, *added.values(), strict=True):
            fields = dict(zip(added, values, strict=True))
            lines[place] = _with_fields(passage.at(place), lines[place], fields)
        return lines

    def _tokens(self, at: str, one: dict[str, Any]) -> list[str]:
        if self.tokens_field is not None and self.tokens_field in one:
            return _strings(at, one, self.tokens_field, None)
        wanted = [name for name in (self.tokens_field, self.text_field) if name is not None]
        if self.text_field is None or self.text_field not in one:
            hint = did_you_mean(wanted[-1], one)
            raise HydromelError(
                f"{at}: no field {' or '.join(wanted)}; the object's fields: {', '.join(one) or 'none'}{hint}"
            )
        text = one[self.text_field]
        if not isinstance(text, str):
            raise HydromelError(f"{at}: field '{self.text_field}' is {text!r:.60}; expected a string")
        return spaced(text)


def _object(passage: Passage, place: int) -> dict[str, Any]:
    try:
        value = json.loads(passage.lines[place])
    except (json.JSONDecodeError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        raise HydromelError(f"{passage.at(place)}: not JSON ({why})") from error
    if not isinstance(value, dict):
        raise HydromelError(f"{passage.at(place)}: a JSON {type(value).__name__}; each line must hold one object")
    return value


def _strings(at: str, one: dict[str, Any], name: str, length: int | None) -> list[str]:
    if name not in one:
        raise HydromelError(f"{at}: no field {name}; the object's fields: {', '.join(one) or 'none'}")
    value = one[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise HydromelError(f"{at}: field '{name}' is {value!r:.60}; expected a list of strings")
    if length is not None and len(value) != length:
        raise HydromelError(f"{at}: field '{name}' has {len(value)} values for {length} tokens")
    return value


def _array(passage: Passage, places: list[int], rows: list[list[str]]) -> pa.Array:
    try:
        return pa.array(rows, STRINGS)
    except UnicodeEncodeError:
        for place, row in zip(places, rows, strict=True):
            if any("\ud800" <= character <= "\udfff" for character in "".join(row)):
                raise HydromelError(f"{passage.at(place)}: half a surrogate pair (\\ud800 to \\udfff)") from None
        raise


def _with_fields(at: str, line: str, added: dict[str, Any]) -> str:
    """The object as it stands there, with more fields at its end."""
    body = line.rstrip()[:-1].rstrip()
    for name in added:
        if json.dumps(name) in body and name in json.loads(line):  # the first is quick, the second sure
            raise HydromelError(f"{at}: the object has a field '{name}' already; give the answers another with --field")
    comma = "" if body.strip() == "{" else ", "
    return f"{body}{comma}{json.dumps(added, ensure_ascii=False)[1:]}"


def _rounded(probability: pa.Array) -> list[Any]:
    return [_rounded_one(one) for one in probability.to_pylist()]


def _rounded_one(value: Any) -> Any:
    return [round(one, 4) for one in value] if isinstance(value, list) else round(value, 4)
