"""Parquet, Arrow and Feather files, which are known by their content."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from runner.common.bounded import FREE_EXPANSION_BYTES, MOST_EXPANSION
from runner.common.errors import HydromelError
from runner.common.types import Name, Text
from tasks.datasets import text_blocks
from tasks.datasets.arrow_columns import check_columns, corpus_table
from tasks.datasets.base import FilesCorpus, HasTags, RawText
from tasks.datasets.files import STDIN, standard_input

BINARY = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")  # first bytes of Parquet, and of Arrow as a file and as a stream
BATCH_ROWS = 4096  # rows that are read at once
BUFFER_BYTES = 2**20  # of a column of Parquet, the row groups of which may be large


@dataclass(kw_only=True)
class ArrowFiles(HasTags, RawText, FilesCorpus):
    """A reader of tables in Parquet, Arrow (file or stream, as `datasets` saves them) or Feather.

    Args:
        columns: `tokens`, `tokens_b` (the second text of pairs), `label`, `labels`, `value`, `tags`, `group` (rows with
            equal values stay together when splits are cut) or any other name -> the name of the column in the file, or
            of a field of a struct (`translation.en`). Strings that become `tokens` or `tokens_b` are split by the
            tokenizer; lists are kept; class numbers become class names if `datasets` wrote the file. -100 in `label` or
            `tags` is no target.
    """

    columns: dict[Name, Text]

    def __post_init__(self) -> None:
        check_names(self.columns, self.name)

    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        before = 0
        for table in column_blocks(path, self.columns):
            yield corpus_table(table, self.columns, self.tag_rules, self.tokenizer, str(path), before)
            before += table.num_rows


def check_names(columns: dict[Name, Text], dataset: str) -> None:
    """Raise HydromelError unless `columns` names the tokens, and nothing that readers add themselves."""
    if "tokens" not in columns or {"line", "origin"} & columns.keys():
        raise HydromelError(
            f"dataset={dataset}: dataset.columns names {', '.join(columns) or 'nothing'}; it must name the column that "
            "holds tokens, and may name neither line nor origin"
        )


def column_blocks(path: Path, columns: dict[Name, Text]) -> Iterator[pa.Table]:
    """Yield the columns of a file that are needed, in tables of consecutive rows.

    Raises:
        HydromelError: no such column; a file that cannot be read or is of another format; or one that expands to more
            than 100 times its size (64 MiB are always allowed).
    """
    with _batches(path, columns) as (schema, batches, size):
        most, n_bytes = max(FREE_EXPANSION_BYTES, MOST_EXPANSION * size), 0
        kept, n_kept = list[pa.RecordBatch](), 0
        for batch in batches:
            n_bytes += batch.nbytes
            if n_bytes > most:
                raise HydromelError(
                    f"{path}: the columns expand to more than {most:,} bytes, the most allowed; if you "
                    "trust it, write it without compression and dictionaries"
                )
            for start in range(0, batch.num_rows, BATCH_ROWS):
                kept.append(batch.slice(start, BATCH_ROWS))
                n_kept += kept[-1].nbytes
                if n_kept >= text_blocks.BLOCK_BYTES:
                    yield pa.Table.from_batches(kept).replace_schema_metadata(schema.metadata)
                    kept, n_kept = [], 0
        if kept:
            yield pa.Table.from_batches(kept).replace_schema_metadata(schema.metadata)


def head_of_table(path: Path) -> pa.Table:
    """Return all columns of the first rows of a file; raises HydromelError if it cannot be read."""
    with _batches(path, None) as (schema, batches, _):
        first = next(batches, None)
    table = schema.empty_table() if first is None else pa.Table.from_batches([first])
    return table.replace_schema_metadata(schema.metadata)


@contextmanager
def _batches(path: Path, columns: dict[Name, Text] | None) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch], int]]:
    """Give the schema of a file, an iterator of its needed columns (None: all), and its size in bytes."""
    source = pa.BufferReader(standard_input()) if path == STDIN else pa.OSFile(str(path))
    if not source.size():
        raise HydromelError(f"{path}: the file is empty")
    magic = source.read(6)
    source.seek(0)
    if not magic.startswith(BINARY):
        raise HydromelError(f"{path}: neither Parquet nor Arrow nor Feather, to judge by its first bytes")
    try:
        if magic.startswith(b"PAR1"):
            file = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
            needed = None if columns is None else check_columns(file.schema_arrow, columns, str(path))
            yield file.schema_arrow, file.iter_batches(BATCH_ROWS, columns=needed), source.size()
            return
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = reader = pa.ipc.open_stream(source)
        needed = reader.schema.names if columns is None else check_columns(reader.schema, columns, str(path))
        yield reader.schema, (batch.select(needed) for batch in batches), source.size()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HydromelError(f"{path}: cannot be read as Parquet, Arrow or Feather ({reason})") from error
