"""Arrow and numpy helpers for readers of text, without loops over lines or tokens.

Shapes: B examples, N tokens in total. A list column is flat values with (B+1,) offsets.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError

_NOTES = b"notes"


def array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def list_column(values: pa.Array, offsets: IntArray) -> pa.ListArray:
    """Return `values` (N,) split into lists at `offsets` (B+1,)."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def offsets_of(column: pa.ListArray) -> IntArray:
    """Return the start of each list in `column.flatten()`, and its length: (B+1,), from 0 even for a slice."""
    offsets: IntArray = column.offsets.to_numpy().astype(np.int64)
    offsets -= offsets[0]
    return offsets


def lengths_of(column: pa.ListArray) -> IntArray:
    """Return the length (B,) of each list."""
    return np.diff(offsets_of(column))


def mask_of(booleans: pa.Array) -> BoolArray:
    mask: BoolArray = booleans.to_numpy(zero_copy_only=False)
    return mask


def is_empty(strings: pa.Array) -> BoolArray:
    """Return a mask (N,) of the empty strings."""
    return mask_of(pc.equal(pc.binary_length(strings), 0))


def refuse(wrong: BoolArray, message: Callable[[int], str]) -> None:
    """Raise a HydromelError with the message for the first index at which `wrong` is true, if there is one."""
    if wrong.any():
        raise HydromelError(message(int(wrong.argmax())))


def split_on_spaces(text: pa.Array) -> pa.ListArray:
    """Split strings (B,) into B lists of tokens, at runs of U+0020 only.

    Tabs and other white space stay inside tokens: this is for columns of files, `runner.text.tokenizers` for texts. An
    empty or blank string gives an empty list.
    """
    lists = pc.split_pattern(text, " ")
    pieces, offsets = lists.flatten(), offsets_of(lists)
    kept = ~is_empty(pieces)
    if kept.all():
        return lists
    kept_before = np.concatenate(([0], np.cumsum(kept)))
    return list_column(pieces.filter(pa.array(kept)), kept_before[offsets])


def utf8_bytes(strings: pa.Array) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """Return the concatenated UTF-8 bytes of all strings, and the start of each string among them: (B+1,)."""
    # Views of Arrow's buffers: nothing is copied. A slice has offsets that do not start at 0.
    _, offset_buffer, data = strings.buffers()
    width = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    offsets = np.frombuffer(offset_buffer, width)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    everything = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return everything[offsets[0] : offsets[-1]], offsets - offsets[0]


def split_characters(text: pa.Array) -> pa.ListArray:
    """Split strings (B,) into B lists of Unicode characters."""
    data, offsets = utf8_bytes(text)
    starts_character = (data & 0xC0) != 0x80  # all bytes of UTF-8 except the continuation bytes 10xxxxxx
    bounds = np.append(np.flatnonzero(starts_character), len(data)).astype(np.int32)
    characters = pa.StringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))
    characters_before = np.concatenate(([0], np.cumsum(starts_character)))
    return list_column(characters, characters_before[offsets])


def example_table(
    columns: dict[str, pa.Array], line: IntArray, path: Path, notes: Mapping[str, int] | None = None
) -> pa.Table:
    """Return the table of a file: the columns, the 1-based `line` (B,), and the path in the schema's metadata.

    `notes` say what the reader left out or had to decide, and how often.
    """
    if "labels" in columns:
        notes = {**(notes or {}), "labels that a row has more than once, counted once": _repeated(columns["labels"])}
    table = pa.table({**columns, "line": pa.array(line, pa.int64())}).replace_schema_metadata({"path": str(path)})
    return with_notes(table, notes or {})


def _repeated(lists: pa.ListArray) -> int:
    """Return the number of strings in lists (B,) that are in the same list before them."""
    ids = lists.flatten().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lists)), np.diff(offsets_of(lists)))
    distinct: IntArray = np.unique(rows * (ids.max(initial=0) + 1) + ids)
    return int(ids.size - distinct.size)


def with_notes(table: pa.Table, notes: Mapping[str, int]) -> pa.Table:
    """Return the table with the notes that are counted at least once, in place of its own."""
    counted = {note: count for note, count in notes.items() if count}
    others = {key: value for key, value in (table.schema.metadata or {}).items() if key != _NOTES}
    return table.replace_schema_metadata({**others, _NOTES: json.dumps(counted)} if counted else others)


def notes_of(table: pa.Table) -> dict[str, int]:
    """Return the notes of a table's reader."""
    notes: dict[str, int] = json.loads((table.schema.metadata or {}).get(_NOTES, b"{}"))
    return notes
