"""Writes that a crash or a full disk cannot leave half done."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runner.common.errors import HydromelError


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace `path` atomically: after a crash it is the old file or the new one, never a mixture.

    Raises:
        HydromelError: no space, no permission, ...
    """
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically, in UTF-8.

    Raises:
        HydromelError: no space, no permission, ...
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` atomically.

    Raises:
        HydromelError: no space, no permission, ...
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def append(path: Path, content: bytes) -> None:
    """Append `content` for good, whole or not at all (a disk that fills up halfway leaves the file as it was)."""
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            written = 0
            while written < len(content):
                written += file.write(content[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def cut_torn_line(path: Path) -> None:
    """Drop a last line without its end: the process that wrote it was killed in the middle."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        keep, block = size, 1 << 16
        while keep > 0:
            start = max(0, keep - block)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < size:
            file.truncate(keep)


def finite(value: object) -> object:
    """`value` with None for the floats that JSON cannot hold: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def cannot_write(path: Path, error: OSError) -> HydromelError:
    """The error, in one line, for a full disk, a missing permission, ..."""
    return HydromelError(f"cannot write {path}: {error.strerror or error}")


def check_writable(path: Path | None) -> None:
    """Make the file's folder and try it, before the work whose result it is to hold; None is no file.

    Raises:
        HydromelError: it cannot be written.
    """
    if path is None:
        return
    there = next(one for one in path.absolute().parents if one.exists())
    if not there.is_dir():
        raise HydromelError(f"{path}: cannot be written ({there} is no folder)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        was_there = path.exists()
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise _cannot(path, error) from error


def write(path: Path, text: str) -> None:
    """Write `text` in UTF-8.

    Raises:
        HydromelError: it could not be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot(path, error) from error


def as_json(content: object) -> str:
    """JSON of plain values; NaN and infinities, for which it has no word, are null."""
    return json.dumps(finite(content), indent=1, allow_nan=False) + "\n"


def _cannot(path: Path, error: OSError) -> HydromelError:
    return HydromelError(f"{path}: cannot be written ({error.strerror or error})")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: temporary file in the same folder, flushed to disk, then renamed.

    Raises:
        HydromelError: no space, no permission; what stood there before is kept.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise HydromelError(
            f"{path} could not be written ({error.strerror}); what stood there before is kept"
        ) from error
