"""Rows given as objects with named fields: lines of JSON, and the rows of a data frame or a list in Python."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import lengths_of
from runner.text.formats.base import STRINGS
from runner.text.tokenizers import OFFSETS, Tokenizer, with_offsets

TOKENS_B = "tokens_b"  # the column of the second text of a pair


@dataclass(frozen=True)
class TextFields:
    """The fields of an object that may hold one text."""

    tokens_field: str | None  # name of a field with a list of strings
    text_field: str | None  # name of a field with a text, read if `tokens_field` is missing; may be the same

    def of(self, at: str, fields: Mapping[str, object]) -> str | list[str]:
        """Return an object's text, or its tokens; raise a HydromelError that begins with `at` if it has none."""
        is_text = self.tokens_field == self.text_field and isinstance(fields.get(self.text_field or ""), str)
        if self.tokens_field is not None and self.tokens_field in fields and not is_text:
            return _strings(at, fields, self.tokens_field, None)
        names = [*dict.fromkeys(name for name in (self.tokens_field, self.text_field) if name is not None)]
        if self.text_field is None or self.text_field not in fields:
            hint = f"; {self.naming(names[-1], fields)}" if fields else ""
            raise HydromelError(
                f"{at}: no field {' or '.join(names)}; the object's fields: {', '.join(fields) or 'none'}{hint}"
            )
        text = fields[self.text_field]
        if not isinstance(text, str):
            raise HydromelError(f"{at}: field '{self.text_field}' is {text!r:.60}; expected a string")
        return text

    def naming(self, name: str, fields: Collection[str]) -> str:
        """Return the advice on how to name the field of the text, if none of `fields` is `name`."""
        return f"rename that of the text to {name}"


FIRST_TEXT = TextFields("tokens", "text")
SECOND_TEXT = TextFields(TOKENS_B, "text_b")


def table_of_objects(
    objects: Sequence[Mapping[str, object]],
    names: Sequence[str],
    columns: Collection[str],
    first: TextFields,
    second: TextFields,
    tokenizer: Tokenizer,
) -> pa.Table:
    """Return the `columns` of B objects, (B,) lists of strings; `OFFSETS` may be among them.

    Args:
        names: the name of each object in error messages, such as `file:line`.
        first: the fields that may hold the text of an object; in pairs, the first text.
        second: the fields of the second text of a pair.
        tokenizer: splits the texts that are not given as tokens.

    Raises:
        HydromelError: an object lacks a field, or its value is not text or has the wrong length.
    """
    arrays = _tokens(first, objects, names, OFFSETS[0] in columns, tokenizer)
    if TOKENS_B in columns:
        arrays[TOKENS_B] = _tokens(second, objects, names, False, tokenizer)["tokens"]
    lengths = {name: lengths_of(arrays[name]).tolist() for name in arrays if name not in OFFSETS}
    for name in (name for name in columns if name not in arrays):
        of = TOKENS_B if TOKENS_B in arrays and name.endswith("_b") else "tokens"
        rows = zip(names, objects, lengths[of], strict=True)
        arrays[name] = _array(names, [_strings(at, fields, name, length) for at, fields, length in rows], STRINGS)
    return pa.table({name: arrays[name] for name in columns})


def _tokens(
    of: TextFields, objects: Sequence[Mapping[str, object]], names: Sequence[str], offsets: bool, tokenizer: Tokenizer
) -> dict[str, pa.Array]:
    """Return the tokens of one text of each object, (B,) lists of strings; with `offsets` also their positions.

    The text of an object that has tokens is these tokens, joined by spaces.
    """
    given = [of.of(at, fields) for at, fields in zip(names, objects, strict=True)]
    texts = [value if isinstance(value, str) else "" for value in given]
    spans = tokenizer.spans(_array(names, texts, pa.string()))
    columns = with_offsets(spans) if offsets else {"tokens": spans.tokens()}
    if all(isinstance(value, str) for value in given):
        return columns
    rows = {name: column.to_pylist() for name, column in columns.items()}
    for row, tokens in enumerate(given):
        if not isinstance(tokens, str):
            ends = np.cumsum([len(token) + 1 for token in tokens]) - 1
            starts = ends - [len(token) for token in tokens]
            own = {"tokens": tokens, "text": " ".join(tokens), "starts": starts.tolist(), "ends": ends.tolist()}
            for name, values in rows.items():
                values[row] = own[name]
    kinds = {name: column.type for name, column in columns.items()}
    _array(names, rows["tokens"], STRINGS)  # names the row of a surrogate
    return {name: pa.array(values, kinds[name]) for name, values in rows.items()}


def _strings(at: str, fields: Mapping[str, object], name: str, length: int | None) -> list[str]:
    if name not in fields:
        raise HydromelError(f"{at}: no field {name}; the object's fields: {', '.join(fields) or 'none'}")
    value = fields[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise HydromelError(f"{at}: field '{name}' is {value!r:.60}; expected a list of strings")
    if length is not None and len(value) != length:
        raise HydromelError(f"{at}: field '{name}' has {len(value)} values for {length} tokens")
    return value


def _array(names: Sequence[str], rows: Sequence[str | list[str]], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(rows, kind)
    except UnicodeEncodeError:
        for at, row in zip(names, rows, strict=True):
            if any("\ud800" <= character <= "\udfff" for character in "".join(row)):
                raise HydromelError(
                    f"{at}: an unpaired surrogate (\\ud800 to \\udfff) is not valid text; remove it"
                ) from None
        raise
