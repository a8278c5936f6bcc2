"""Atomic writes, JSON without NaN, and one-line errors."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from io import FileIO
from mmap import ACCESS_READ, mmap
from pathlib import Path

from runner.common.errors import HydromelError


class CannotWrite(HydromelError):
    """The system does not let a file be written: a full disk, a missing permission, ..."""


_TEMPORARY = re.compile(r"\..+\.([1-9]\d*)")  # .NAME.PID, until it is renamed to NAME


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically: after a crash the file is the old or the new one. A missing folder is created.

    Raises HydromelError for no space, no permission, ...; the old file is kept.
    """
    write_chunks(path, [content])


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by some chunks of bytes, one after the other; raises as `write_bytes`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_new(temporary) as file:
            for chunk in chunks:
                _write(file, chunk)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # also if a signal interrupts the write
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def open_new(path: Path) -> FileIO:
    """Open a new file, which replaces what was there; a link to a file elsewhere is not followed. Raises OSError."""
    path.unlink(missing_ok=True)
    return path.open("xb", buffering=0)


def remove_leftovers(folder: Path, pattern: str = "**/.*", older_than_s: float = 0.0) -> None:
    """Remove the temporary files in `folder` of writers on this machine that were killed.

    Args:
        pattern: glob pattern of their paths below `folder`.
        older_than_s: keep files that were written to within this many seconds, for a folder that machines share.
    """
    for path in folder.glob(pattern):
        if (match := _TEMPORARY.fullmatch(path.name)) and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):  # leftovers do not harm the run
                if time.time() - path.lstat().st_mtime >= older_than_s:
                    path.unlink()


def _is_alive(process: int) -> bool:
    """Return True for the id of another live process. The own id counts as dead: in containers ids recur."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # a process of another user; too large for a process id
        pass
    return True


def cache_folder() -> Path:
    """Return the folder of what can be made again: $HYDROMEL_CACHE, by default ~/.cache/hydromel."""
    return Path(os.environ.get("HYDROMEL_CACHE") or "~/.cache/hydromel").expanduser()


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically, in UTF-8. Raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    """Replace `path` atomically by `content` as JSON. Raises as `write_bytes`."""
    write_text(path, to_json(content, indent=2))


def write_output(path: Path | None, text: str) -> None:
    """Write `text` in UTF-8 to a file that the user named, which may be a pipe or a device; None: do nothing.

    File names that are not UTF-8 are written with `\\udc..` for each such byte. Raises HydromelError if it could not be
    written.
    """
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise cannot_write(path, error) from error


def to_json(content: object, indent: int | None = 1, ascii_only: bool = True) -> str:
    """Return `content` as JSON, with a line break at its end; `indent`: spaces per level, None: one line.

    Dataclasses become objects and paths strings. JSON has neither NaN nor infinities: they become null.
    """
    return json.dumps(_plain(content), indent=indent, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return str(value) if isinstance(value, Path) else value


def append(path: Path, content: bytes) -> None:
    """Append `content` and flush it to disk; if the disk is full the file stays unchanged. Raises OSError."""
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            _write(file, content)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def _write(file: FileIO, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:  # a disk that is almost full takes only a part
        rest = rest[file.write(rest) :]


def cut_torn_line(path: Path) -> None:
    """Remove a last line without a line break, left by a process that was killed while it wrote."""
    size = path.stat().st_size
    if not size:  # an empty file cannot be mapped
        return
    with path.open("rb+") as file:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
        if end < size:
            file.truncate(end)


def check_writable(path: Path | None) -> None:
    """Raise HydromelError if a file cannot be written, before the work whose result it will hold; None: no file."""
    if path is None:
        return
    ancestor = next(parent for parent in path.absolute().parents if parent.exists())
    if not ancestor.is_dir():
        raise HydromelError(f"cannot write {path}: {ancestor} is not a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """Return the error, in one line, for a full disk, a missing permission, ..."""
    return CannotWrite(f"cannot write {path}: {error.strerror or error}")
