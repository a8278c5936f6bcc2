"""SHA-256 of files; that of a large file is computed once and remembered by its path, size and time of change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from runner.common.errors import HydromelError
from runner.common.files import cache_folder, write_json

LARGE_BYTES = 2**26  # smaller files are hashed each time
SETTLED_SECONDS = 2.0  # a file that changed within this time may change again without a later time of change
_CHUNK_BYTES = 2**20


def file_sha256(path: Path, leave_out: int = 0) -> str:
    """Return the sha256 of a file's bytes on disk, without the last `leave_out` ones.

    Raises:
        HydromelError: the file cannot be read, or changes while it is.
    """
    try:
        before = path.stat()
        if before.st_size >= LARGE_BYTES and (known := _known(path, before, leave_out)) is not None:
            return known
        digest, rest = hashlib.sha256(), max(0, before.st_size - leave_out)
        with path.open("rb") as file:
            while rest and (chunk := file.read(min(_CHUNK_BYTES, rest))):
                digest.update(chunk)
                rest -= len(chunk)
        after = path.stat()
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error})") from error
    if _state(before) != _state(after):
        raise HydromelError(f"{path}: changed while it was read; start again once it is complete")
    if before.st_size >= LARGE_BYTES and time.time() - before.st_mtime > SETTLED_SECONDS:
        remember(path, digest.hexdigest(), leave_out)
    return digest.hexdigest()


def remember(path: Path, sha256: str, leave_out: int = 0) -> None:
    """Remember the `file_sha256` of a file as it is now, if that can be written; OSError if there is no file."""
    record = {"path": str(path.resolve()), "state": _state(path.stat()), "leave_out": leave_out, "sha256": sha256}
    with contextlib.suppress(HydromelError):  # it is computed again
        write_json(_record(path), record)


def _known(path: Path, status: os.stat_result, leave_out: int) -> str | None:
    try:
        record = json.loads(_record(path).read_bytes())
        if (record["path"], record["state"], record["leave_out"]) == (str(path.resolve()), _state(status), leave_out):
            return str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _record(path: Path) -> Path:
    name = hashlib.blake2b(bytes(path.resolve()), digest_size=16).hexdigest()
    return cache_folder() / "hashes" / f"{name}.json"


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino]
