"""JSON Lines: one object per line, with a text or a list of tokens, and a label or a list of tags."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import json as arrow_json

from runner.common.errors import HydromelError, did_you_mean, quoted, shortened
from runner.common.types import Text
from runner.text.arrow import array, example_table, is_empty, refuse
from runner.text.blocks import Blocks
from runner.text.formats.lines import JsonLines
from runner.text.formats.objects import TextFields
from tasks.datasets.base import HasTags, LocalCorpus, RawText, check_tag_lists, lists_of_tokens
from tasks.datasets.files import TextFile
from tasks.datasets.pairs import TOKENS, PairOf, check_pair
from tasks.datasets.split import GROUP
from tasks.datasets.text_blocks import BlockEnd, last_line, text_blocks

STRINGS = pa.list_(pa.string())
NOTHING = pa.list_(pa.null())  # type of lists of labels that are all empty
# Types a label may have, the same on every line.
LABEL_TYPES = {bool: pa.bool_(), int: pa.int64(), str: pa.string()}
NUMBER = pa.float64()  # type of regression targets; integers count as numbers
_EXPECTED = {
    pa.bool_(): "true or false",
    pa.int64(): "an integer",
    pa.string(): "a string",
    NUMBER: "a number",
    STRINGS: "a list of strings",
    NOTHING: "an empty list",
    pa.list_(pa.bool_()): "a list of true and false",
    pa.list_(pa.int64()): "a list of integers",
}


@dataclass(kw_only=True)
class Jsonl(HasTags, RawText, LocalCorpus):
    """A reader of text as JSON objects; fields that are not named here are ignored.

    Args:
        text_field: field with a string, split by the tokenizer (null: use `tokens_field`).
        tokens_field: field with a list of strings (null: use `text_field`).
        text_columns: for pairs of texts, a mapping of `a` and `b` to the field of each, instead of those above; fields
            hold strings or lists of strings, as on the first line (null: one text).
        label_field: field with a string, integer or boolean; or a list of these, for several labels; or, for
            regression, a number, if some are not integers (null: none).
        group_field: field with a string or an integer: rows with equal values stay together when splits are cut from
            the training set (null: none).
        tags_field: field with a list of strings, one per token (null: none).
    """

    text_field: Text | None
    tokens_field: Text | None
    text_columns: PairOf[Text] | None
    label_field: Text | None
    group_field: Text | None
    tags_field: Text | None

    def __post_init__(self) -> None:
        check_pair(self.text_columns, "dataset.text_columns")
        if self.text_columns is None and (self.text_field is None) == (self.tokens_field is None):
            raise HydromelError(
                f"dataset.text_field={self.text_field or 'null'} and dataset.tokens_field={self.tokens_field or 'null'}"
                "; set exactly one"
            )

        self._whole_numbers_are_labels = True

    @property
    def block_end(self) -> BlockEnd:
        return last_line

    def read_blocks(self) -> dict[str, Blocks]:
        try:
            return super().read_blocks()
        except _NotAnInteger:
            self._whole_numbers_are_labels = False
            return super().read_blocks()

    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        fields: dict[str, pa.DataType] = {}
        for block in text_blocks(path, self.encoding, self.block_end):
            fields = self._fields(block, split, fields)
            yield self._table(block, split, fields)

    def parse(self, file: TextFile, split: str) -> pa.Table:
        return self._table(file, split, self._fields(file, split, {}))

    def _table(self, file: TextFile, split: str, fields: Mapping[str, pa.DataType]) -> pa.Table:
        file = file.body()
        values = _read(file, fields, self.label_field)
        columns = {
            name: lists_of_tokens(values[field], self.tokenizer, f"{file.path}: field '{field}'")
            for name, field in self._texts.items()
        }
        if self.label_field is not None:
            labels = values[self.label_field]
            if labels.type == NUMBER:
                columns["value"] = labels
            elif pa.types.is_list(labels.type):
                columns["labels"] = labels.cast(STRINGS)
            else:
                columns["label"] = labels.cast(pa.string())
                refuse(
                    is_empty(columns["label"]),
                    lambda row: (
                        f"{file.at(file.numbers[row])}: field '{self.label_field}' is empty; every row needs a label"
                    ),
                )
        if self.group_field is not None and split == "train":
            columns[GROUP] = values[self.group_field].cast(pa.string())
        if self.tags_field is not None:
            tags = columns["tags"] = values[self.tags_field]
            field = f"field '{self.tags_field}'"
            check_tag_lists(
                columns["tokens"], tags, self.tag_rules, lambda row: f"{file.at(file.numbers[row])}: {field}"
            )
        return example_table(columns, file.numbers, file.path)

    def text_format(self) -> JsonLines:
        """Return the format of this data set's files, the default for text given to models trained on it."""
        if self.text_columns is None:
            return JsonLines(self.tokens_field, self.text_field, tokenizer=self.tokenizer)
        first, second = (self.text_columns[text] for text in TOKENS)
        return JsonLines(first, first, second=TextFields(second, second), tokenizer=self.tokenizer)

    @property
    def _texts(self) -> dict[str, str]:
        """The fields of the columns of texts."""
        if self.text_columns is not None:
            return {name: self.text_columns[text] for text, name in TOKENS.items()}
        field = self.text_field or self.tokens_field
        assert field is not None  # checked above
        return {"tokens": field}

    def _fields(self, file: TextFile, split: str, known: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
        """Return the Arrow type of each named field, given those of earlier blocks of the file.

        The label's type is taken from the first line that has one, the types of pairs and groups from the first line.
        """
        if known and known.get(self.label_field or "") != NOTHING:
            return dict(known)
        file = file.body()
        fields = dict.fromkeys(self._texts.values(), STRINGS if self.tokens_field else pa.string())
        if self.text_columns is not None:
            first = _object(file, 0)
            fields = {name: STRINGS if isinstance(first.get(name), list) else pa.string() for name in fields}
        if self.tags_field is not None:
            fields[self.tags_field] = STRINGS
        if self.label_field is not None:
            labels = (_object(file, row).get(self.label_field) for row in range(len(file.lines)))
            label = next((label for label in labels if label != []), [])
            kind = NOTHING if label == [] else _kind(label) or pa.string()
            if known and not pa.types.is_list(kind):  # earlier labels are lists
                kind = STRINGS
            fields[self.label_field] = NUMBER if kind == pa.int64() and not self._whole_numbers_are_labels else kind
        if self.group_field is not None and split == "train" and self.group_field not in fields:
            fields[self.group_field] = LABEL_TYPES.get(type(_object(file, 0).get(self.group_field)), pa.string())
        return {**fields, **{name: kind for name, kind in known.items() if kind != NOTHING}}


class _NotAnInteger(HydromelError):
    """A label is a number with a fraction, and earlier ones are integers."""


def _kind(value: object) -> pa.DataType | None:
    """Return the Arrow type of a JSON value; None if no field may have it. An empty list counts as one of strings."""
    if isinstance(value, list):
        kinds = {None if isinstance(entry, list) else _kind(entry) for entry in value} or {pa.string()}
        kind = kinds.pop()
        return pa.list_(kind) if not kinds and kind in LABEL_TYPES.values() else None
    return NUMBER if isinstance(value, float) else LABEL_TYPES.get(type(value))


def _read(file: TextFile, fields: Mapping[str, pa.DataType], label: str | None) -> dict[str, pa.Array]:
    """Return the named fields of all lines; `label` is the field of the label.

    Raises:
        _NotAnInteger: labels are integers on the lines before.
        HydromelError: a line is not an object, or a field is missing, null or of another type.
    """
    data, schema = file.text.encode(), pa.schema(list(fields.items()))
    block = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    named_only = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(pa.py_buffer(data), block, named_only)
    except pa.ArrowInvalid as error:
        raise _explain(file, fields, label, str(error)) from error
    columns = {name: array(table[name]) for name in fields}
    nulls = sum(column.null_count for column in columns.values())
    nulls += sum(column.flatten().null_count for column in columns.values() if pa.types.is_list(column.type))
    if nulls or table.num_rows != len(file.lines):
        raise _explain(file, fields, label, f"{table.num_rows} objects on {len(file.lines)} lines")
    return columns


def _object(file: TextFile, row: int) -> dict[str, object]:
    at = file.at(file.numbers[row])
    try:
        value = json.loads(file.lines[row].as_py())
    except (json.JSONDecodeError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise HydromelError(f"{at}: not JSON ({why})") from error
    if not isinstance(value, dict):
        raise HydromelError(f"{at}: got {quoted(value)}; each line must hold one JSON object")
    return value


def _explain(file: TextFile, fields: Mapping[str, pa.DataType], label: str | None, reason: str) -> HydromelError:
    """Return an error with the first invalid line, found line by line since Arrow does not say."""
    for row, line in enumerate(file.numbers):
        record = _object(file, row)
        for name, kind in fields.items():
            if name not in record:
                names = shortened(", ".join(sorted(record)), 200) or "none"
                return HydromelError(
                    f"{file.at(line)}: no field '{name}'; the object's fields: {names}{did_you_mean(name, record)}"
                )
            value = record[name]
            found = _kind(value)
            fits = found == kind or (kind == NUMBER and found == pa.int64()) or (pa.types.is_list(kind) and value == [])
            if not fits:
                shown = "null" if value is None else quoted(value)
                fraction = name == label and kind == pa.int64() and found == NUMBER
                error = _NotAnInteger if fraction else HydromelError
                return error(f"{file.at(line)}: field '{name}' is {shown}; expected {_EXPECTED[kind]}")
    return HydromelError(f"{file.path}: {' '.join(reason.split())[:200]}")
