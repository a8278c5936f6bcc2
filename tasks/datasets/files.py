"""Finding and reading the files of a data set, standard input included; text may be compressed, as its content says."""

import codecs
import glob
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from runner.common.arrays import IntArray
from runner.common.bounded import expand, first_bytes, read_bytes
from runner.common.errors import HydromelError, shortened
from runner.common.hashes import file_sha256
from runner.common.types import FilePath, is_encoding

MAX_BYTES = 2**31 - 1  # Arrow strings have 32-bit offsets
SAVED = ("dataset_dict.json", "state.json")  # files in a folder of `save_to_disk`
BYTE_ORDER_MARK = "\ufeff"
STDIN = Path("-")
Files = FilePath | Annotated[list[FilePath], Field(min_length=1)]  # paths and patterns
_PATTERN = re.compile(r"[*?\[]")
CR_AT_END = re.compile(r"\r+(\n|\Z)")  # before the end of a line, or of the file
# first bytes of formats that are no text -> what to do with them
_NOT_TEXT = {
    b"PAR1": "a Parquet file; read it with dataset=parquet",
    b"ARROW1\0\0": "an Arrow file; read it with dataset=parquet",
    b"PK\x03\x04": "a zip archive or an office document; unpack it, or export it as CSV",
    b"%PDF-": "a PDF document; export its text",
}


@dataclass(frozen=True)
class TextFile:
    """A decoded file, or a block of one. Line ends are LF, and there is no byte order mark."""

    path: Path
    text: str
    before: int = 0  # number of lines of the file before this block
    head: str | None = None  # first line of the file (None: it is in this block)

    @cached_property
    def lines(self) -> pa.StringArray:
        """The lines (L,) without line ends; the last line counts whether or not it has a line end."""
        lines = pc.split_pattern(pa.array([self.text], pa.string()), "\n").flatten()
        return lines[:-1] if self.text.endswith("\n") or not self.text else lines

    @cached_property
    def numbers(self) -> IntArray:
        """The 1-based numbers (L,) of `lines` in the file."""
        return np.arange(self.before + 1, self.before + len(self.lines) + 1)

    @property
    def first_line(self) -> str:
        """The first line of the file."""
        return self.text.partition("\n")[0] if self.head is None else self.head

    def body(self) -> "TextFile":
        """Return the file without empty lines, or lines of spaces, at its end: in most formats they are no examples."""
        text = self.text.rstrip("\n ")
        text += self.text[len(text) :].partition("\n")[0]  # the last line keeps its spaces
        return replace(self, text=text)

    def at(self, line: int) -> str:
        """Return `path:line`, as in editors and compilers."""
        return f"{self.path}:{line}"


def find_all(files: str | Sequence[str], data_dir: str | None, where: str) -> list[Path]:
    """Return the paths of one split in the order of `files`; those of a pattern are in the order of their names.

    A file is `data_dir/file` (None: the working directory) or, if that is missing, the file of that name directly in
    `data_dir`; `-` is standard input. A name with `*`, `?` or `[...]` is a pattern unless there is a file of that name;
    `**` stands for any folders, except links. `where` is the option, for messages.

    Raises:
        HydromelError: there is no such file, or a pattern has several `**`.
    """
    paths = []
    for file in [files] if isinstance(files, str) else files:
        if file == str(STDIN):
            paths.append(STDIN)
            continue
        folder = Path(data_dir or "").expanduser()
        places = dict.fromkeys((folder / Path(file).expanduser(), folder / Path(file).name))
        if data_dir is None:  # a file in the working directory is named as it is
            places = {Path(file).expanduser(): None}
        if there := next((place for place in places if place.is_file()), None):
            paths.append(there)
        elif _PATTERN.search(file):
            pattern = file if data_dir is None else str(Path(glob.escape(str(folder)), file))
            matches = [path for name in sorted(_matching(pattern, where)) if (path := Path(name)).is_file()]
            if not matches:
                raise HydromelError(f"{where}: no file matches {Path(folder, file)}; check data_dir")
            paths += matches
        else:
            raise _missing(file, data_dir, where, [*places])
    return paths


def _matching(pattern: str, where: str) -> Iterator[str]:
    """Yield the names that fit a pattern, each once.

    `glob` follows links below `**`, so it might never end in a tree with a loop of links (such as /proc). It also walks
    the tree below one `**` again for the next.
    """
    above, *below = re.split(r"(?:^|(?<=/))\*\*(?:/|$)", pattern)
    if len(below) > 1:
        raise HydromelError(f"{where}: {shortened(pattern)} has ** more than once; use it once")
    if not below:
        yield from glob.iglob(pattern)
        return
    for top in glob.iglob(above or "."):
        for folder, inner, _ in os.walk(top):
            inner[:] = [name for name in inner if not name.startswith(".")]
            yield from glob.iglob(str(Path(glob.escape(folder), below[0] or "*")))


def _missing(file: str, data_dir: str | None, where: str, places: Sequence[Path]) -> HydromelError:
    if folder := next((place for place in places if place.is_dir()), None):
        if any((folder / name).is_file() for name in SAVED):
            return HydromelError(
                f"{where}: {folder} is a folder of save_to_disk; use dataset=hub dataset.path={folder}"
            )
        return HydromelError(f"{where}: {folder} is a folder; give a file, or all with {folder}/*")
    if special := next((place for place in places if place.exists()), None):
        return HydromelError(f"{where}: {special} is not a regular file, such as a device or a named pipe")
    if data_dir is None and not Path(file).is_absolute():
        return HydromelError(
            f"{where}: there is no {file} in the working directory; give data_dir=FOLDER, the folder that contains it"
        )
    direct = "" if len(places) == 1 else f", and no {places[1].name} directly in {data_dir}"
    return HydromelError(f"{where}: there is no file {places[0]}{direct}; check data_dir")


@cache
def standard_input() -> bytes:
    """Return all bytes of standard input, which are read once; raises HydromelError if there are none or too many."""
    if sys.stdin is not None and sys.stdin.isatty():
        raise HydromelError("'-' is standard input, which is a terminal; pipe a file into the command")
    binary = getattr(sys.stdin, "buffer", None)  # runs of a sweep have no standard input
    data = b"" if binary is None else binary.read(MAX_BYTES + 1)
    if not data:
        raise HydromelError(
            "'-' is standard input, which is empty; pipe a file into the command (the runs of a sweep, of repeat=N and "
            "of a search cannot share it: name a file)"
        )
    if len(data) > MAX_BYTES:
        raise HydromelError(f"standard input: more than {MAX_BYTES:,} bytes, the most that is read; split it")
    return bytes(data)


def read_text(path: Path, encoding: str) -> TextFile:
    """Read a file as text; it may be compressed by gzip, bzip2, xz or zstd.

    Raises:
        HydromelError: the file cannot be read, is empty, too large or damaged; also the errors of `decoded`.
    """
    return TextFile(path, decoded(path, expand(content_of(path), str(path), MAX_BYTES), encoding))


def decoded(path: Path, data: bytes, encoding: str, is_whole: bool = True) -> str:
    """Return the text of a file, or of its beginning, without its byte order mark and with LF as line ends.

    Line ends may be LF, CRLF or CR CR LF, or CR in a file that has none of these; in others it is a character.

    Raises:
        HydromelError: no bytes, or those of a format that is no text; only white space; an unknown encoding; bytes
            invalid in it; a NUL character.
    """
    check_start(path, data, encoding)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)
    except UnicodeError as error:
        raise not_decoded(path, encoding, data, error) from error
    text = text.removeprefix(BYTE_ORDER_MARK)
    if "\r" in text:
        text = CR_AT_END.sub(r"\1", text) if "\n" in text else text.replace("\r", "\n")
    check_characters(path, text, 0)
    if not text.strip():
        raise HydromelError(f"{path}: no examples; the file contains only white space")
    return text


def check_start(path: Path, data: bytes, encoding: str) -> None:
    """Raise a HydromelError unless the first bytes of a file may be text in a known encoding."""
    if not data:
        raise HydromelError(f"{path}: the file is empty")
    for magic, what in _NOT_TEXT.items():
        if data.startswith(magic):
            raise HydromelError(f"{path}: {what}")
    if not is_encoding(encoding):
        raise HydromelError(
            f"dataset.encoding='{encoding}' is unknown; use a name such as utf-8, iso-8859-1, cp1252 or utf-16"
        )


def check_characters(path: Path, text: str, lines_before: int) -> None:
    """Raise a HydromelError if a text, which `lines_before` lines of the file precede, has a NUL character."""
    if (place := text.find("\0")) >= 0:
        raise HydromelError(
            f"{path}:{place_in(text, place, lines_before)}: a NUL character, which no text has; if the file is in "
            "UTF-16, set dataset.encoding=utf-16-le or utf-16-be"
        )


def not_decoded(
    path: Path, encoding: str, data: bytes, error: UnicodeError, before: str = "", lines: int = 0, first_byte: int = 0
) -> HydromelError:
    """Return the error with the line and the column of the first bytes that are invalid.

    `data` starts at byte `first_byte` of the file, after `lines` lines and the text `before`.
    """
    if not isinstance(error, UnicodeDecodeError):  # UTF-16 without a byte order mark
        return HydromelError(f"{path}: not {encoding} ({error}); set the file's encoding with dataset.encoding=...")
    hint = "set the file's encoding with dataset.encoding=..."
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and not first_byte:
        hint = "it begins like UTF-16: set dataset.encoding=utf-16"
    before += data[: error.start].decode(encoding, errors="replace")
    return HydromelError(
        f"{path}:{place_in(before, len(before), lines)}: byte {first_byte + error.start} "
        f"(0x{data[error.start]:02x}) is not {encoding}: {error.reason}; {hint}"
    )


def place_in(text: str, place: int, lines_before: int = 0) -> str:
    """Return `line:column`, both from 1, of a character of a text, which `lines_before` lines of the file precede."""
    return f"{lines_before + text.count(chr(10), 0, place) + 1}:{place - text.rfind(chr(10), 0, place)}"


def content_of(path: Path) -> bytes:
    """Return the bytes of a file, or of standard input."""
    return standard_input() if path == STDIN else read_bytes(path, MAX_BYTES)


def head_of(path: Path, most: int) -> tuple[bytes, bool]:
    """Return the first `most` bytes of a file, without its compression, and whether they are all.

    Raises:
        HydromelError: the file cannot be read, or is damaged.
    """
    try:
        with io.BytesIO(standard_input()) if path == STDIN else path.open("rb") as file:
            head = first_bytes(file, str(path), most + 1)
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror or error})") from error
    return head[:most], len(head) <= most


def sha256(path: Path) -> str:
    """Return the sha256 of the file's bytes on disk."""
    return hashlib.sha256(standard_input()).hexdigest() if path == STDIN else file_sha256(path)
