"""Finding and reading text files, plain or gzipped (told by content, not by name)."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 2**31 - 1  # Arrow strings have offsets of 32 bits
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class TextFile:
    """One file, decoded: line ends are LF, and no byte order mark stands at its beginning."""

    path: Path
    text: str

    @cached_property
    def lines(self) -> pa.StringArray:
        """(L,) without line ends; a last line counts with or without its own line end."""
        lines = pc.split_pattern(pa.array([self.text], pa.string()), "\n").flatten()
        return lines[:-1] if self.text.endswith("\n") or not self.text else lines

    @cached_property
    def numbers(self) -> IntArray:
        """(L,) 1-based numbers of `lines`."""
        return np.arange(1, len(self.lines) + 1)

    def body(self) -> "TextFile":
        """The file without empty lines at its end, where they hold no example."""
        return TextFile(self.path, self.text.rstrip("\n"))

    def at(self, line: int) -> str:
        """`path:line`, as editors and compilers write it."""
        return f"{self.path}:{line}"


def find(relative: str, data_dir: str | None, dataset: str) -> Path:
    """`data_dir`/`relative`, or else the file of that name in `data_dir` itself.

    Raises:
        HydromelError: no `data_dir` where one is needed, or no such file.
    """
    if data_dir is None and not Path(relative).is_absolute():
        raise HydromelError(
            f"dataset={dataset} reads local files: give data_dir=FOLDER, a folder that holds {relative}"
        )
    folder = Path(data_dir or "/").expanduser()
    for candidate in (folder / relative, folder / Path(relative).name):
        if candidate.is_file():
            return candidate
    raise HydromelError(f"dataset={dataset}: no file {folder / relative} (nor {Path(relative).name} in the folder)")


def read_bytes(path: Path) -> bytes:
    """The contents of a file, unzipped if they begin as gzip does.

    Raises:
        HydromelError: the file cannot be read, is empty, too large, or damaged gzip.
    """
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise HydromelError(f"{path}: cannot be read ({error})") from error
    if not data:
        raise HydromelError(f"{path}: the file is empty")
    if len(data) > MAX_BYTES:
        raise HydromelError(
            f"{path}: {len(data):,} bytes of text; at most {MAX_BYTES:,} are allowed, so split the file"
        )
    return data


def read_text(path: Path, encoding: str) -> TextFile:
    """A file as text.

    Raises:
        HydromelError: as `read_bytes`; an unknown encoding; bytes that are not of that encoding; no text.
    """
    data = read_bytes(path)
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise HydromelError(
            f"dataset.encoding='{encoding}' is unknown; use a name such as utf-8, iso-8859-1, cp1252 or utf-16"
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HydromelError(
            f"{path}:{line}: byte {error.start} (0x{data[error.start]:02x}) is not {encoding}: {error.reason}; "
            "name the file's own encoding with dataset.encoding=..."
        ) from error
    text = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n")
    if not text.strip():
        raise HydromelError(f"{path}: no examples, the file holds white space alone")
    return TextFile(path, text)


def sha256(path: Path) -> str:
    """Of the bytes as they lie on disk."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error})") from error
