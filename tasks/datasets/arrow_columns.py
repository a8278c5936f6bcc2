"""Columns of Arrow tables that others wrote, on the Hub or in Parquet files, as columns of a corpus."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError, unknown
from runner.text.arrow import array, example_table, list_column, mask_of, offsets_of, refuse
from runner.text.tokenizers import Tokenizer
from tasks.datasets.base import check_tag_lists, lists_of_tokens
from tasks.datasets.pairs import TOKENS
from tasks.spans.finding import TagRules

IGNORED = -100  # class of a target that does not count, the default `ignore_index` of PyTorch's cross entropy
TARGETS = ("label", "tags")  # columns in which a value may be ignored
SHAPES = {
    "label": "one value per row",
    "group": "one value per row",
    "tags": "lists with one tag per token",
    "labels": "lists of labels",
}
_FEATURES = b"huggingface"  # key of the schema's metadata in which `datasets` keeps the types of columns


def corpus_table(
    table: pa.Table, columns: Mapping[str, str], rules: TagRules, tokenizer: Tokenizer, where: str, before: int = 0
) -> pa.Table:
    """Return the examples of a table of any types: its `columns` by their names here, and the 1-based row as `line`.

    Strings that become `tokens` or `tokens_b` are split by the tokenizer, and lists are kept. Class numbers become the
    names that `datasets` notes in the schema, other numbers their digits. A class of -100 in `label` or `tags` becomes
    null: it is no target. `where` names the table in messages. The table may be a block, which `before` rows precede.

    Raises:
        HydromelError: a missing column or value, a type that does not fit, or tags that are not allowed.
    """
    check_columns(table.schema, columns, where)
    names = class_names(table.schema)
    result = {}
    for name, own in columns.items():
        at = f"{where}: column {own}"
        if name == "value":
            result[name] = _numbers(column_of(table, own), at, before + 1)
            continue
        column = _strings(column_of(table, own), names.get(own), name in TARGETS, at, before + 1)
        is_list = pa.types.is_list(column.type)
        if name in SHAPES and is_list != SHAPES[name].startswith("lists"):
            raise HydromelError(f"{at} has type {column_of(table, own).type}; {name} must be {SHAPES[name]}")
        if name == "label" and (row := column.index("").as_py()) >= 0:
            raise HydromelError(f"{at}: row {before + row + 1} is empty; every row needs a label")
        result[name] = column
        if name in TOKENS.values():
            result[name] = lists_of_tokens(column, tokenizer, at)
    if "tags" in result:
        tokens, tags, at = result["tokens"], result["tags"], f"{where}: column {columns['tags']}"
        check_tag_lists(tokens, tags, rules, lambda row: f"{at}: row {before + row + 1}")
    return example_table(result, np.arange(before + 1, before + table.num_rows + 1), Path(where))


def top_columns(names: Sequence[str], columns: Mapping[str, str], where: str) -> list[str]:
    """Return those columns of a table, called `names`, that are among `columns` or are structs with such fields.

    Raises:
        HydromelError: there is no such column.
    """
    tops = [own if own in names else own.split(".")[0] for own in columns.values()]
    for top, own in zip(tops, columns.values(), strict=True):
        if top not in names:
            raise unknown("column", own, names, f"dataset.columns, {where}")
    return list(dict.fromkeys(tops))


def check_columns(schema: pa.Schema, columns: Mapping[str, str], where: str) -> list[str]:
    """Return the `top_columns` of a table; raise HydromelError also if a struct lacks a field."""
    tops = top_columns(schema.names, columns, where)
    for own in columns.values():
        if own in schema.names:
            continue
        top, *fields = own.split(".")
        kind = schema.field(top).type
        for name in fields:
            inside = [kind.field(place).name for place in range(kind.num_fields)] if pa.types.is_struct(kind) else []
            if name not in inside:
                raise unknown("field", name, inside, f"dataset.columns, {where}: {own}")
            kind = kind.field(inside.index(name)).type
    return tops


def column_of(table: pa.Table, own: str) -> pa.Array:
    """Return a column, or a field of a struct, that `check_columns` has found."""
    if own in table.column_names:
        return array(table[own])
    top, *fields = own.split(".")
    return pc.struct_field(array(table[top]), fields)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the classes of each column that has them, as `datasets` notes them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[_FEATURES])["info"]["features"].items()
        found = {str(column): _names_in(feature) for column, feature in features}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if names is not None}


def _names_in(feature: object) -> list[str] | None:
    """Return the names of a `ClassLabel` or of lists of it, given as JSON; None if `feature` is neither.

    Earlier versions of `datasets` wrote a list type as a JSON list with one item."""
    if isinstance(feature, list):
        return _names_in(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else _names_in(feature.get("feature"))


def _numbers(column: pa.Array, where: str, first_row: int) -> pa.Array:
    """Return a column of numbers (B,) as float64; raises HydromelError for other types, nulls, NaN and infinities."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise HydromelError(f"{where} has type {column.type}; value must be one number per row")
    numbers = column.cast(pa.float64())
    wrong = ~mask_of(pc.fill_null(pc.is_finite(numbers), False))
    refuse(
        wrong, lambda row: f"{where}: row {first_row + row} is {column[row].as_py()}; every row needs a finite number"
    )
    return numbers


def _strings(column: pa.Array, names: list[str] | None, is_target: bool, where: str, first_row: int) -> pa.Array:
    """Return a column (B,) of values or lists as string or list<string>; raises as `corpus_table`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _strings(column.dictionary_decode(), names, is_target, where, first_row)
    refuse(mask_of(column.is_null()), lambda row: f"{where}: row {first_row + row} has no value; every row needs one")
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    if not pa.types.is_list(column.type):
        return _flat_strings(column, names, is_target, where, lambda row: first_row + row)
    offsets = offsets_of(column)

    def row_of(item: int) -> int:
        return first_row - 1 + int(offsets.searchsorted(item, side="right"))

    items = column.flatten()
    refuse(mask_of(items.is_null()), lambda item: f"{where}: row {row_of(item)} has an item without a value")
    return list_column(_flat_strings(items, names, is_target, where, row_of), offsets)


def _flat_strings(
    values: pa.Array, names: list[str] | None, is_target: bool, where: str, row_of: Callable[[int], int]
) -> pa.Array:
    """Return values (N,) as strings; `row_of` gives the row of each for messages."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _flat_strings(values.dictionary_decode(), names, is_target, where, row_of)
    if not pa.types.is_integer(kind):
        try:
            return values.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise HydromelError(f"{where} has type {kind}, which is no text: {str(error).splitlines()[0]}") from error
    ignored = pc.equal(values, IGNORED) if is_target else pa.scalar(False)
    if names is None:
        return pc.if_else(ignored, pa.scalar(None, pa.string()), values.cast(pa.string()))
    named = pc.and_(pc.greater_equal(values, 0), pc.less(values, len(names)))
    refuse(
        ~mask_of(pc.or_(named, ignored)),
        lambda item: (
            f"{where}: row {row_of(item)}: class {values[item].as_py()} has no name; classes are 0 to {len(names) - 1} "
            "(-1: labels are hidden; name another split, or null to cut it from train)"
        ),
    )
    return pa.array(names, pa.string()).take(pc.if_else(ignored, pa.scalar(None, kind), values))
