"""Detail tables: figures by label or by type of span, and counts of pairs of gold and predicted labels.

In memory a table is an Arrow table. In `result.json` a small one is a list of rows, and a large one the name of a
Parquet file in the run's folder, so that the record of a run stays small for any number of labels.

Shapes: K names (labels or types of span), N targets, P distinct pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from runner.common import run_schema
from runner.common.arrays import IntArray
from runner.common.bounded import MOST_TABLE_BYTES, MOST_TABLE_ROWS, read_bytes
from runner.common.errors import HydromelError
from runner.common.files import write_bytes

MOST_ROWS = 200  # longest table kept within result.json
MOST_CELL_BYTES = 2**15  # most bytes of its values, since labels may be long

NAMES = pa.field("name", pa.string())
SCORES = pa.schema(
    [NAMES, *(pa.field(score, pa.float64()) for score in ("precision", "recall", "f1")), ("support", pa.int64())]
)
PAIRS = pa.schema([("gold", pa.string()), ("predicted", pa.string()), ("count", pa.int64())])


class TableFile(TypedDict):
    """A table that is not within `result.json`."""

    file: str  # relative to the run's folder
    rows: int


def count_pairs(gold: IntArray, predicted: IntArray, n_names: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return the distinct pairs of ids (N,) and (N,) from 0 to K - 1, sorted, and the count of each: three of (P,)."""
    keys, counts = np.unique(gold.astype(np.int64) * n_names + predicted, return_counts=True)
    return keys // n_names, keys % n_names, counts


def pair_table(names: Sequence[str], gold: IntArray, predicted: IntArray) -> pa.Table:
    """Return the table `PAIRS` of gold and predicted ids (N,) of `names` (K,): a row for each pair that occurs."""
    rows, columns, counts = count_pairs(gold, predicted, len(names))
    strings = pa.array(names, pa.string())
    return pa.table([strings.take(pa.array(rows)), strings.take(pa.array(columns)), pa.array(counts)], schema=PAIRS)


def largest(table: pa.Table, column: str, most: int) -> pa.Table:
    """Return the rows with the `most` largest values of a column, in decreasing order; among ties the first rows."""
    order = np.argsort(-table[column].to_numpy(), kind="stable")[:most]
    return table.take(pa.array(order))


def most_confused(pairs: pa.Table, most: int) -> pa.Table:
    """Return the most frequent pairs of different names."""
    return largest(pairs.filter(pc.not_equal(pairs["gold"], pairs["predicted"])), "count", most)


def set_apart(content: Mapping[str, object], folder: Path, *parents: str) -> dict[str, object]:
    """Return `content` with its tables as lists of rows, and write the large ones to `folder`: they become `TableFile`.

    `content` is nested mappings; a table at `test`, `per_class` becomes the file `tables/test_per_class.parquet`.

    Raises:
        HydromelError: a file cannot be written.
    """
    plain: dict[str, object] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            plain[key] = set_apart(value, folder, *parents, key)
        else:
            plain[key] = _written(value, folder, (*parents, key)) if isinstance(value, pa.Table) else value
    return plain


def without_tables(content: Mapping[str, object]) -> dict[str, object]:
    """Return nested mappings without their tables, which checkpoints do not store."""
    return {
        key: without_tables(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if not isinstance(value, pa.Table)
    }


def as_rows(content: object) -> object:
    """Return nested mappings with all tables as lists of rows, whatever their size."""
    if isinstance(content, Mapping):
        return {key: as_rows(value) for key, value in content.items()}
    return content.to_pylist() if isinstance(content, pa.Table) else content


def _written(table: pa.Table, folder: Path, keys: Sequence[str]) -> list[dict[str, object]] | TableFile:
    if table.num_rows <= MOST_ROWS and table.nbytes <= MOST_CELL_BYTES:
        rows: list[dict[str, object]] = table.to_pylist()
        return rows
    name = re.sub(r"[^\w-]", "_", "_".join(keys))
    file = f"{run_schema.TABLES}/{name}.parquet"
    buffer = BytesIO()
    # `read_table` accepts nothing else, since compressed columns expand without bound
    pq.write_table(table, buffer, compression="none")
    write_bytes(folder / file, buffer.getvalue())
    return {"file": file, "rows": table.num_rows}


def read_table(value: object, folder: Path, schema: pa.Schema) -> pa.Table | None:
    """Return a table of `result.json` in `folder` with the columns of `schema`, or None if it is none or damaged.

    Raises:
        HydromelError: its file is missing, damaged or too large.
    """
    if isinstance(value, Mapping) and isinstance(file := value.get("file"), str):
        return _read_file(folder / run_schema.TABLES / Path(file).name, schema)
    if not isinstance(value, list):
        return None
    try:
        table = pa.Table.from_pylist(value, schema)
    except (pa.ArrowException, TypeError, ValueError, AttributeError):
        return None
    return None if _has_nulls(table) else table


def _read_file(path: Path, schema: pa.Schema) -> pa.Table:
    content = read_bytes(path, MOST_TABLE_BYTES)
    try:
        # Keep equal strings as one string in memory, since a file can repeat a long one at the cost of a few bits.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        file = pq.ParquetFile(BytesIO(content), read_dictionary=texts)
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
        if any(chunk.compression != "UNCOMPRESSED" for chunk in chunks):
            raise HydromelError(f"{path}: damaged, its columns are compressed, but this program compresses none")
        if sum(group.num_rows for group in groups) > MOST_TABLE_ROWS:  # the file's own sum may be wrong
            raise HydromelError(f"{path}: more than {MOST_TABLE_ROWS:,} rows, the most that a table may have")
        table = file.read(schema.names)
        if sum(_decoded_bytes(table[name]) for name in texts) > MOST_TABLE_BYTES:
            raise HydromelError(f"{path}: more than {MOST_TABLE_BYTES:,} bytes of text, the most that a table may have")
        if _has_nulls(table):
            raise HydromelError(f"{path} is damaged: it lacks values")
        return table.cast(schema)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise HydromelError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def _has_nulls(table: pa.Table) -> bool:
    return any(column.null_count for column in table.columns)


def _decoded_bytes(column: pa.ChunkedArray) -> int:
    """Return the size of a dictionary-encoded column of strings as plain strings."""
    sizes = (pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() for chunk in column.chunks)
    return sum(size or 0 for size in sizes)
