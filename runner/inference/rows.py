"""Rows given in Python, as lists or data frames, read as `hydromel-predict` reads JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.inference.trained import Predictor
from runner.text.formats.objects import FIRST_TEXT, SECOND_TEXT, TOKENS_B, table_of_objects
from runner.text.tokenizers import OFFSETS, tokenizer_of

if TYPE_CHECKING:
    import pandas as pd

Text: TypeAlias = str | Sequence[str]  # raw text, or its tokens
# Texts, pairs of texts, objects with the fields of `hydromel-predict --format jsonl`, or a table with these columns
Rows: TypeAlias = "Sequence[Text | tuple[Text, Text] | Mapping[str, object]] | pd.DataFrame | pa.Table"


def table_of(rows: Rows, predictor: Predictor, offsets: bool = False) -> pa.Table:
    """Return the columns that a run reads; with `offsets` also where the tokens are in the text.

    Raises:
        HydromelError: a row lacks a column or is no text; rows are counted from 0.
    """
    columns = [*predictor.columns, *(OFFSETS if offsets else ())]
    objects = list(_objects(rows, is_pairs=TOKENS_B in columns))
    names = [f"row {number}" for number in range(len(objects))]
    tokenizer = tokenizer_of(predictor.trained.corpus)
    return table_of_objects(objects, names, columns, FIRST_TEXT, SECOND_TEXT, tokenizer)


def _objects(rows: Rows, is_pairs: bool) -> Iterator[Mapping[str, object]]:
    """Yield an object for each row, without its missing values."""
    if isinstance(rows, str | Mapping):
        raise HydromelError(f"got {rows!r:.60}; rows are given as a list: [{rows!r:.60}]")
    if isinstance(rows, pa.Table):
        rows = rows.to_pylist()
    elif (to_dict := getattr(rows, "to_dict", None)) is not None:  # a data frame, without importing pandas
        rows = to_dict("records")
    if not isinstance(rows, Iterable):
        raise HydromelError(f"got {rows!r:.60}; rows are given as a list of texts")
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            yield {str(name): _plain(value) for name, value in row.items() if not _is_absent(value)}
        elif is_pairs:
            if isinstance(row, str) or len(row) != 2:
                raise HydromelError(f"row {number}: got {row!r:.60}; this run reads pairs of texts: (text, text_b)")
            yield {**_field("text", "tokens", row[0]), **_field("text_b", TOKENS_B, row[1])}
        else:
            yield _field("text", "tokens", row)


def _field(text: str, tokens: str, value: object) -> dict[str, object]:
    return {text if isinstance(value, str) else tokens: _plain(value)}


def _plain(value: object) -> object:
    """Return a list for any other kind of sequence, such as an array of a data frame."""
    if isinstance(value, tuple):
        return list(value)
    to_list = getattr(value, "tolist", None)
    return to_list() if to_list is not None else value


def _is_absent(value: object) -> bool:
    """Return True for the missing values of data frames: None, and numbers that differ from themselves."""
    return value is None or (isinstance(value, float) and value != value)
