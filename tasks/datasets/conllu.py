"""CoNLL-U and CoNLL-U Plus (universaldependencies.org/format.html): tab-separated columns, one word per line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError, unknown
from runner.common.types import Name, Text
from runner.text.arrow import mask_of, refuse
from runner.text.formats.conllu import STANDARD, ConlluColumns, named_in, position
from tasks.datasets.base import HasTags
from tasks.datasets.conll import Cells, TokenLines
from tasks.datasets.files import TextFile

FURTHER = ("lemma", "xpos")  # columns of the table that are read if the file has them
UNSPECIFIED = "_"


@dataclass(kw_only=True)
class Conllu(HasTags, TokenLines):
    """A reader of treebanks as tagged text, with any column as tags.

    Comments, multiword ranges (id `8-9`) and empty nodes (id `8.1`) are ignored. A file that starts with
    `# global.columns = ...` (CoNLL-U Plus) has these columns. The columns LEMMA and XPOS are read as `lemma` and `xpos`
    if there are any.

    Args:
        columns: `tokens`, `tags` or any other name -> the column's name, in any case: form, upos, deprel, ..., or the
            name of a column of CoNLL-U Plus; `misc.KEY` and `feats.KEY` are the values of KEY in MISC and FEATS. A tag
            `_`, or a missing KEY, is no target.
    """

    columns: dict[Name, Text]

    def __post_init__(self) -> None:
        if "tokens" not in self.columns or {"line", "label"} & set(self.columns):
            raise HydromelError(
                f"dataset.columns names {', '.join(self.columns) or 'nothing'}; "
                "it must name tokens, and may name neither line nor label"
            )

    def parse_cells(self, cells: Cells, split: str) -> pa.Table:
        file, names = cells.file, _names(cells.file)
        columns = {name: name for name in FURTHER if position(name, names) is not None} | self.columns
        values = {name: _values(cells, names, column, f"dataset.columns.{name}") for name, column in columns.items()}
        if "tags" in values:
            tags = values["tags"]
            values["tags"] = pc.if_else(pc.equal(tags, UNSPECIFIED), pa.scalar(None, pa.string()), tags)
            if values["tags"].null_count == len(tags) and not file.before:
                raise HydromelError(f"{file.path}: column {columns['tags']} has no tags, only _ (dataset.columns.tags)")
            note = f"tags that are unspecified ({UNSPECIFIED}), which are no targets"
            cells = cells.noting({note: values["tags"].null_count})
        return cells.table(values, self.tag_rules)

    def text_format(self) -> ConlluColumns:
        return ConlluColumns.of({name: name for name in FURTHER} | self.columns)

    def cells(self, file: TextFile, width: int | None = None) -> Cells:
        cells, names = Cells.of(file, "tab", "#", False, width), _names(file)
        if cells.width != len(names):
            what = "CoNLL-U" if names == STANDARD else "the file's first line"
            raise HydromelError(f"{file.at(cells.line[0])}: {cells.width} columns; {what} has {len(names)}")
        if (place := position("ID", names)) is None:
            return cells
        ids = cells.column(place)
        refuse(
            ~mask_of(pc.match_substring_regex(ids, r"^[0-9]+([-.][0-9]+)?$")),
            lambda row: (
                f"{file.at(cells.line[row])}: id '{ids[row].as_py()}'; "
                "CoNLL-U allows 8, 8-9 for a range or 8.1 for an empty node"
            ),
        )
        return cells.keep(mask_of(pc.ascii_is_decimal(ids)))


def _names(file: TextFile) -> Sequence[str]:
    """Return the names of a file's columns."""
    return named_in(file.first_line) or STANDARD


def _values(cells: Cells, names: Sequence[str], column: str, option: str) -> pa.Array:
    """Return the column (N,) of this name, or the values of a key in one, with `_` where it is missing.

    Raises:
        HydromelError: there is no such column, or no word has the key.
    """
    if (place := position(column, names)) is not None:
        return cells.column(place)
    outer, _, key = column.partition(".")
    place = position(outer, names)
    if place is None or not key:
        raise unknown("column", column, [name.lower() for name in names], f"{option}, {cells.file.path}")
    pairs = cells.column(place)
    values = pc.struct_field(pc.extract_regex(pairs, rf"(?:^|\|){re.escape(key)}=(?P<value>[^|]+)"), "value")
    if values.null_count == len(values) and not cells.file.before:
        parts = pc.split_pattern(pairs.unique(), "|").flatten()
        keys = pc.struct_field(pc.extract_regex(parts, r"^(?P<key>[^=]+)="), "key").drop_null()
        raise unknown("key", key, keys.unique().to_pylist()[:12], f"{option}, {names[place]} in {cells.file.path}")
    return values.fill_null(UNSPECIFIED)
