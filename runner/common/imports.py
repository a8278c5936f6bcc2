"""Imports of large libraries, which make hundreds of thousands of objects and no garbage."""

from __future__ import annotations

import atexit
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collections, which take up to a third of the time of an import and find nothing.

    Requests to stop wait for the end of the context: a library may catch the KeyboardInterrupt of a module that it can
    do without, and then works with half of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_all_at_exit() -> None:
    """Let this program end without a search for garbage, which takes half a second once torch and MLflow are there."""
    atexit.register(gc.freeze)
