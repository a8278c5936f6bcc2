"""Finding and reading text files, plain or gzipped (detected by content, not by name)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.bounded import gunzip, read_bytes
from runner.common.errors import HydromelError

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 2**31 - 1  # Arrow strings have 32-bit offsets
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class TextFile:
    """A decoded file. Line ends are LF, and there is no byte order mark."""

    path: Path
    text: str

    @cached_property
    def lines(self) -> pa.StringArray:
        """The lines (L,) without line ends; the last line counts whether or not it has a line end."""
        lines = pc.split_pattern(pa.array([self.text], pa.string()), "\n").flatten()
        return lines[:-1] if self.text.endswith("\n") or not self.text else lines

    @cached_property
    def numbers(self) -> IntArray:
        """The 1-based numbers (L,) of `lines`."""
        return np.arange(1, len(self.lines) + 1)

    def body(self) -> "TextFile":
        """Return the file without empty lines at its end, for formats in which they are not examples."""
        return TextFile(self.path, self.text.rstrip("\n"))

    def at(self, line: int) -> str:
        """Return `path:line`, as in editors and compilers."""
        return f"{self.path}:{line}"


def find(relative: str, data_dir: str | None, dataset: str) -> Path:
    """Return the path `data_dir/relative`, or else the file of that name in `data_dir` itself.

    Raises:
        HydromelError: there is no `data_dir` but one is needed, or there is no such file.
    """
    if data_dir is None and not Path(relative).is_absolute():
        raise HydromelError(
            f"dataset={dataset} reads local files; give data_dir=FOLDER, the folder that contains {relative}"
        )
    folder = Path(data_dir or "/").expanduser()
    for candidate in (folder / relative, folder / Path(relative).name):
        if candidate.is_file():
            return candidate
    direct = "" if Path(relative).name == str(relative) else f", and no {Path(relative).name} directly in {folder}"
    raise HydromelError(f"dataset={dataset}: there is no file {folder / relative}{direct}; check data_dir")


def read_text(path: Path, encoding: str) -> TextFile:
    """Read a file as text; it may be compressed by gzip.

    Raises:
        HydromelError: the file cannot be read, is empty, too large, damaged gzip, or only white space; an unknown
            encoding; bytes invalid in it; a NUL character.
    """
    data = read_bytes(path, MAX_BYTES)
    if data.startswith(GZIP_MAGIC):
        data = gunzip(data, str(path), MAX_BYTES)
    if not data:
        raise HydromelError(f"{path}: the file is empty")
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
            "set the file's encoding with dataset.encoding=..."
        ) from error
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise HydromelError(
            f"{path}:{line}: a NUL character, which no text has; if the file is in UTF-16, set "
            "dataset.encoding=utf-16-le or utf-16-be"
        )
    text = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n")
    if not text.strip():
        raise HydromelError(f"{path}: no examples; the file contains only white space")
    return TextFile(path, text)


def sha256(path: Path) -> str:
    """Return the sha256 of the file's bytes on disk."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error})") from error
