"""Reading files that anyone may have written, such as those in a run's folder, within bounds of size and depth.

Without bounds a file of a few kilobytes can fill the memory (YAML aliases, compressed text and arrays), overflow the
stack (nested brackets), or never end (a named pipe, a link to /dev/zero). Each bound is far above what this program
writes; docs/security.md lists them. JSON is checked in `runner.common.records`; pydantic limits its depth.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import yaml

from runner.common import run_schema
from runner.common.errors import HydromelError

MOST_YAML_BYTES = 2**20  # a config has a few kilobytes; parsing takes 200 times as much memory
MOST_JSON_BYTES = 2**28  # a record is below a megabyte, but earlier versions kept confusion matrices in it
MOST_TABLE_BYTES = 2**28  # limits a file in tables/, and the strings in it; 100,000 labels have 5 MB
MOST_TABLE_ROWS = 2**24  # rows of such a file
MOST_VOCABS_BYTES = 2**31  # vocabs.json: 100 million strings
MOST_METRICS_BYTES = 2**31  # metrics.jsonl: 14 million records
MOST_LINE_BYTES = 2**22  # a line of metrics.jsonl
MOST_ARRAYS_BYTES = 2**32  # enough for outcomes.npz of 170 million examples
MOST_LEVELS = 100  # depth of YAML; pydantic limits that of JSON to 200
MOST_DIGITS = 1000  # length of a number in YAML; parsing one of a megabyte takes minutes
MOST_EXPANSION = 100  # expansion of a compressed file; text expands three to thirty times
FREE_EXPANSION_BYTES = 2**26  # the size to which any compressed file may expand
_CHUNK_BYTES = 2**20


class Readable(Protocol):
    """The part of a binary file that is used here."""

    def read(self, size: int, /) -> bytes: ...


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without aliases: an object that occurs twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


# PyYAML's safe loader, in C if available, that refuses long numbers and reads dates as strings
_Loader: type[yaml.SafeLoader] = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > MOST_DIGITS:
        raise yaml.YAMLError(f"a number of {len(node.value):,} digits; at most {MOST_DIGITS:,} are allowed")
    number: int | float = (
        loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)
    )
    return number


for _kind, _construct in (
    ("int", _construct_number),
    ("float", _construct_number),
    ("timestamp", yaml.SafeLoader.construct_yaml_str),
):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct)


def read_bytes(path: Path, most: int = MOST_JSON_BYTES) -> bytes:
    """Return the content of a regular file of at most `most` bytes; raises HydromelError for any other."""
    try:
        check_size(path, most)
        with path.open("rb") as file:
            # not `most`, which would be allocated; a file that grows meanwhile is read as far as it was
            return file.read(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_size(path: Path, most: int) -> None:
    """Raise HydromelError unless a path is a regular file of at most `most` bytes; OSError if there is none."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for whoever writes to it
        raise HydromelError(f"{path}: not a regular file")
    if status.st_size > most:
        raise HydromelError(f"{path}: more than {most:,} bytes, the most that this file may have")


def check_contents(folder: Path) -> None:
    """Check a run's folder before it is written to, since writing through a link would change a file elsewhere.

    Raises HydromelError if anything in it that a run writes is a link, or neither a file nor a folder.
    """
    for path in folder.glob("*"):
        if path.name in (*run_schema.FILES, *run_schema.FOLDERS) or path.suffix == ".lock":
            _check_own(path)
    for name in run_schema.FOLDERS:
        for path in (folder / name).rglob("*"):
            _check_own(path)


def _check_own(path: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
        raise HydromelError(f"{path}: {what}; a run writes only to files and folders of its own; remove it")


def read_lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    """Yield the lines of an open file of records; raises HydromelError for one of more than `MOST_LINE_BYTES`."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            raise HydromelError(f"{where}: a line of more than {MOST_LINE_BYTES:,} bytes, the most allowed")
        yield line


def read_yaml(path: Path) -> object:
    """Return the content of a YAML file; raises HydromelError as `read_bytes`, and as `parse_yaml`."""
    return parse_yaml(read_bytes(path, MOST_YAML_BYTES), str(path))


def parse_yaml(text: str | bytes, where: str) -> object:
    """Return the value of a text in YAML: mappings with string keys, lists, strings, numbers, booleans and null.

    Raises HydromelError if it is not YAML, nested too deeply, or has aliases or tags, which this program never writes;
    `where` names the text in messages.
    """
    try:
        _check_events(text, where)
        value: object = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HydromelError(f"{where}: damaged, not YAML ({' '.join(str(error).split())})") from error
    _check_keys(value, where)
    return value


def _check_events(text: str | bytes, where: str) -> None:
    """Refuse a text whose value would be large or deep, before any of it is built."""
    level = 0
    for event in yaml.parse(text, _Loader):
        at = f"{where}:{event.start_mark.line + 1}" if event.start_mark else where
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise HydromelError(f"{at}: nested more than {MOST_LEVELS} levels deep, the most allowed")
        if isinstance(event, yaml.AliasEvent):
            raise HydromelError(f"{at}: the alias *{event.anchor:.40}; a saved file has no aliases")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise HydromelError(f"{at}: the tag {event.tag:.40}; a saved file has no tags")


def _check_keys(value: object, where: str) -> None:
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        _check_keys(item, where)
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, str):
            raise HydromelError(f"{where}: damaged, the key {key!r:.40} is not a string")


def to_yaml(content: object) -> str:
    """Return plain values as YAML that `parse_yaml` reads; raises HydromelError if there is too much of it."""
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if len(text.encode()) > MOST_YAML_BYTES:
        raise HydromelError(f"the config has more than {MOST_YAML_BYTES:,} bytes as YAML, the most that a run may have")
    return text


def expand(content: bytes, where: str, most: int) -> bytes:
    """Return the decompressed content, at most `most` bytes, of a file compressed by gzip, bzip2, xz or zstd.

    The content of any other file is returned as it is; `where` names the file in messages.

    Raises HydromelError if it is damaged, too large, or expands more than text does.
    """
    if _opener(content) is None:
        return content
    allowed = max(FREE_EXPANSION_BYTES, MOST_EXPANSION * len(content))
    expanded = first_bytes(io.BytesIO(content), where, min(allowed, most) + 1)
    if len(expanded) > allowed:
        raise _expands(where, len(content))
    if len(expanded) > most:
        raise HydromelError(f"{where}: expands to more than {most:,} bytes, the most allowed; split it")
    return expanded


@contextmanager
def open_expanded(path: Path) -> Iterator[Readable]:
    """Open a regular file of any size, to be read from its start, decompressed by gzip, bzip2, xz or zstd if need be.

    Raises HydromelError, also while it is read, if it cannot be, is damaged, or expands more than text does.
    """
    try:
        check_size(path, sys.maxsize)
        with path.open("rb") as file:
            opener = _opener(file.read(_MAGIC_BYTES))
            file.seek(0)
            yield file if opener is None else _Limited(opener(file), path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise HydromelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


class _Limited:
    """The content of a compressed file, which may not expand more than text does."""

    def __init__(self, source: Readable, path: Path) -> None:
        self._source, self._path, self._read, self._size = source, path, 0, path.stat().st_size

    def read(self, size: int, /) -> bytes:
        content = self._source.read(size)
        self._read += len(content)
        if self._read > max(FREE_EXPANSION_BYTES, MOST_EXPANSION * self._size):
            raise _expands(str(self._path), self._size)
        return content


def _expands(where: str, size: int) -> HydromelError:
    return HydromelError(
        f"{where}: expands to more than {MOST_EXPANSION} times its {size:,} bytes, unlike text; if you trust it, "
        "unpack it first"
    )


def first_bytes(file: BinaryIO, where: str, most: int) -> bytes:
    """Return the first `most` bytes of an open file, decompressed if need be; all of them if there are fewer.

    Raises HydromelError if it is damaged.
    """
    opener = _opener(file.read(_MAGIC_BYTES))
    file.seek(0)
    content = bytearray()
    try:
        source: Readable = file if opener is None else opener(file)
        while len(content) < most and (chunk := source.read(min(_CHUNK_BYTES, most - len(content)))):
            content += chunk
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise HydromelError(f"{where}: cannot be read ({error})") from error
    return bytes(content)


def _zstd(file: BinaryIO) -> Readable:
    import pyarrow as pa  # most commands need it, but not for their help

    source: Readable = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return source


# the first bytes of a compressed file -> its content, from the open file
_COMPRESSED: dict[re.Pattern[bytes], Callable[[BinaryIO], Readable]] = {
    re.compile(rb"\x1f\x8b"): lambda file: gzip.GzipFile(fileobj=file),
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"): bz2.BZ2File,
    re.compile(rb"\xfd7zXZ\0"): lzma.LZMAFile,
    re.compile(rb"\x28\xb5\x2f\xfd"): _zstd,
}
_MAGIC_BYTES = 10


def _opener(head: bytes) -> Callable[[BinaryIO], Readable] | None:
    """Return the function that opens a compressed file by its first bytes; None: it is not compressed."""
    return next((opener for magic, opener in _COMPRESSED.items() if magic.match(head)), None)


def check_uncompressed(arrays: BinaryIO, where: str) -> None:
    """Raise HydromelError unless an open .npz file is a zip archive without compression, as this program writes it."""
    try:
        with ZipFile(arrays) as archive:
            compressed = any(entry.compress_type != ZIP_STORED for entry in archive.infolist())
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise HydromelError(f"{where} is damaged: {' '.join(str(error).split())}") from error
    if compressed:
        raise HydromelError(f"{where} is damaged: its arrays are compressed, but this program compresses none")
    arrays.seek(0)
