"""Arrow and numpy steps that readers of text share: no loop over lines or tokens.

Shapes: B examples, N tokens in all. A list column is flat values with (B+1,) offsets.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray


def array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def list_column(values: pa.Array, offsets: IntArray) -> pa.ListArray:
    """`values` (N,) cut at `offsets` (B+1,)."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def offsets_of(column: pa.ListArray) -> IntArray:
    """(B+1,) where each list begins in `column.flatten()`; from 0, whatever `column` was sliced from."""
    offsets: IntArray = column.offsets.to_numpy().astype(np.int64)
    offsets -= offsets[0]
    return offsets


def lengths_of(column: pa.ListArray) -> IntArray:
    """(B,) number of entries of each list."""
    return np.diff(offsets_of(column))


def mask_of(booleans: pa.Array) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = booleans.to_numpy(zero_copy_only=False)
    return mask


def is_empty(strings: pa.Array) -> npt.NDArray[np.bool_]:
    """(N,) true at empty strings."""
    return mask_of(pc.equal(pc.binary_length(strings), 0))


def first_true(mask: npt.NDArray[np.bool_]) -> int | None:
    """The first place at which `mask` is true, or None."""
    return int(mask.argmax()) if mask.any() else None


def split_on_spaces(text: pa.Array) -> pa.ListArray:
    """Tokens between runs of U+0020; U+00A0, U+FEFF, tabs and other white space stay inside tokens.

    (B,) strings -> B lists; an empty or blank string gives an empty list.
    """
    lists = pc.split_pattern(text, " ")
    pieces, offsets = lists.flatten(), offsets_of(lists)
    kept = ~is_empty(pieces)
    if kept.all():
        return lists
    before = np.concatenate(([0], np.cumsum(kept)))
    return list_column(pieces.filter(pa.array(kept)), before[offsets])


def utf8_bytes(strings: pa.Array) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """The bytes of all strings one after another, and (B+1,) where each string begins among them."""
    _, offset_buffer, data = strings.buffers()
    width = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    offsets = np.frombuffer(offset_buffer, width)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    everything = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return everything[offsets[0] : offsets[-1]], offsets - offsets[0]


def split_characters(text: pa.Array) -> pa.ListArray:
    """Every Unicode character as a token of its own: (B,) strings -> B lists."""
    data, offsets = utf8_bytes(text)
    begins = (data & 0xC0) != 0x80  # every byte of UTF-8 but the continuation bytes 10xxxxxx
    bounds = np.append(np.flatnonzero(begins), len(data)).astype(np.int32)
    characters = pa.StringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))
    before = np.concatenate(([0], np.cumsum(begins)))
    return list_column(characters, before[offsets])


def example_table(columns: dict[str, pa.Array], line: IntArray, path: Path) -> pa.Table:
    """The table of one file: its columns, `line` (B,) from 1, and the path in the schema's metadata."""
    table = pa.table({**columns, "line": pa.array(line, pa.int64())})
    return table.replace_schema_metadata({b"path": str(path).encode()})
