"""The rows of a split as its corpus reads them, kept beside the cached integers: predictions are written with them.

Reading a corpus once more for a few rows can take longer than the training of a small model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa

from runner.common.files import write_bytes
from runner.interfaces import Corpus, read_blocks

_DIGEST_BYTES = 32


def rows_path(cache: Path, corpus: Corpus, fingerprint: str, rules: int) -> Path:
    """Return the path in the folder `cache`, without the name of the split, for this content of a corpus at its place.

    Rows name their file, by a path that may be relative, so those of an equal file elsewhere are kept apart.
    """
    place = [str(Path.cwd()), vars(corpus)]
    key = hashlib.sha256(json.dumps([rules, fingerprint, place], default=_type_name).encode()).hexdigest()
    return cache / f"{corpus.name}-{key[:24]}"


def _type_name(part: object) -> str:
    return type(part).__name__


def keep_rows(path: Path, split: str, rows: pa.Table) -> None:
    """Write the rows of a split with a SHA-256; `path` is that of `rows_path`. Raises CannotWrite."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    body = sink.getvalue().to_pybytes()
    write_bytes(_file(path, split), hashlib.sha256(body).digest() + body)


def split_rows(path: Path | None, split: str, corpus: Corpus) -> pa.Table:
    """Return the rows of a split, from the file beside `path` if it is intact, otherwise from the corpus.

    Raises:
        HydromelError: the corpus cannot be read.
    """
    if path is None:
        return read_blocks(corpus)[split].whole()
    try:
        content = _file(path, split).read_bytes()
    except OSError:
        content = b""
    body = content[_DIGEST_BYTES:]
    if content and hashlib.sha256(body).digest() == content[:_DIGEST_BYTES]:
        return pa.ipc.open_stream(body).read_all()
    rows = read_blocks(corpus)[split].whole()
    keep_rows(path, split, rows)
    return rows


def _file(path: Path, split: str) -> Path:
    return path.with_name(f"{path.name}-{split}.rows")
