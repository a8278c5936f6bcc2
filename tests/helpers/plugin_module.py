"""A plugin that exists during one test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def plugin_module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> Iterator[str]:
    """Write a module to a folder on the import path; it is forgotten afterwards."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    try:
        yield name
    finally:
        sys.modules.pop(name, None)
