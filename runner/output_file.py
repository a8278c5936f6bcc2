"""Files that a command writes besides what it prints (`--json FILE`, `--html FILE`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.durable import finite
from runner.errors import HydromelError


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


def as_json(content: Any) -> str:
    """JSON of plain values; NaN and infinities, for which it has no word, are null."""
    return json.dumps(finite(content), indent=1, allow_nan=False) + "\n"


def _cannot(path: Path, error: OSError) -> HydromelError:
    return HydromelError(f"{path}: cannot be written ({error.strerror or error})")
