"""Imports of large libraries, which make hundreds of thousands of objects and no garbage."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collections, which take up to a third of the time of an import and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def leave_all_at_exit() -> None:
    """Let this program end without a search for garbage, which takes half a second once torch and MLflow are there."""
    atexit.register(gc.freeze)
