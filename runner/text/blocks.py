"""`Blocks`: the rows of a split as tables that are in memory one at a time, so that a corpus may be larger than memory.

Large splits wait in a file without a name, which the system removes with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.common.files import cache_folder, cannot_write
from runner.text.arrow import notes_of, with_notes

IN_MEMORY_BYTES = 2**26  # further blocks of a split go to a file


class Blocks:
    """Tables with the same columns, which can be iterated over any number of times.

    Args:
        tables: the rows in their order; each table is read once, and all but one may be released.

    Raises:
        HydromelError: a table has other columns than the first one, or the disk is full.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self.num_rows, self.notes = 0, Counter[str]()
        self._tables: list[pa.Table] = []
        self._file: BinaryIO | None = None
        self._schema: pa.Schema | None = None
        writer: pa.RecordBatchFileWriter | None = None
        n_bytes = 0
        try:
            for table in tables:
                if self._schema is None:
                    self._schema = with_notes(table, {}).schema
                elif not table.schema.equals(self._schema):
                    raise HydromelError(
                        f"{place_of(table)}: the rows from here on have the columns {_described(table.schema)}; "
                        f"earlier ones have {_described(self._schema)}"
                    )
                self.num_rows += table.num_rows
                self.notes.update(notes_of(table))
                n_bytes += table.nbytes
                if self._tables and table.num_rows and n_bytes > IN_MEMORY_BYTES and writer is None:
                    self._file = new_file(self)
                    writer = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), self._schema)
                    for earlier in self._tables:
                        writer.write_table(earlier)
                    self._tables = []
                table = table.replace_schema_metadata(self._schema.metadata).combine_chunks()
                if writer is not None:
                    writer.write_table(table)
                elif table.num_rows:
                    self._tables.append(table)
            if writer is not None:
                writer.close()
            elif not self._tables:
                self._tables = [self.schema.empty_table()]
        except OSError as error:
            raise cannot_write(cache_folder(), error) from error

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables; each column has one chunk."""
        if self._file is None:
            yield from self._tables
            return
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)]).replace_schema_metadata(self.schema.metadata)

    @property
    def schema(self) -> pa.Schema:
        assert self._schema is not None, "no tables"
        return self._schema

    @property
    def column_names(self) -> list[str]:
        return list(self.schema.names)

    def whole(self) -> pa.Table:
        """Return all rows as one table in memory."""
        tables = [*self]
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        return with_notes(table, self.notes)


class Mapped:
    """The results of a function for each block, which every iteration computes again."""

    def __init__(self, function: Callable[[pa.Table], pa.Table], blocks: Iterable[pa.Table]) -> None:
        self._function, self._blocks = function, blocks

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self._function, self._blocks)


def new_file(owner: object) -> BinaryIO:
    """Return an open file without a name in the cache folder, which is closed with its owner. Raises OSError."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    file = cast(BinaryIO, tempfile.TemporaryFile(dir=cache_folder()))  # noqa: SIM115  # closed with its owner
    weakref.finalize(owner, file.close)
    return file


def place_of(table: pa.Table) -> str:
    """Return `file:line` of the first row of a table with rows, or the file."""
    path: str = (table.schema.metadata or {}).get(b"path", b"the data set").decode()
    if not table.num_rows or "line" not in table.column_names:
        return path
    return str(table["origin"][0].as_py()) if "origin" in table.column_names else f"{path}:{table['line'][0].as_py()}"


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
