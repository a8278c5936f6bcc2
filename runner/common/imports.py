"""Imports of large libraries, which make hundreds of thousands of objects and no garbage."""

from __future__ import annotations

import atexit
import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collections, which take up to a third of the time of an import and find nothing.

    Requests to stop wait for the end of the context: a library may catch the KeyboardInterrupt of a module that it can
    do without, and then works with half of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with _postponing_stops():
            yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _postponing_stops() -> Iterator[None]:
    """Send the signals of STOPPING that arrive within the context again at its end.

    A blocked signal would not do: the system hands it to another thread of the process, and Python then calls the
    handler in the main thread all the same. Elsewhere than in the main thread no handler is ever called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    handlers = {number: signal.getsignal(number) for number in STOPPING}
    ours = {number: before for number, before in handlers.items() if callable(before) or before is signal.SIG_DFL}
    for number in ours:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, before in ours.items():
            if signal.getsignal(number) is remember:
                signal.signal(number, before)
        for missed in arrived:
            signal.raise_signal(missed)


def leave_all_at_exit() -> None:
    """Let this program end without a search for garbage, which takes half a second once torch and MLflow are there."""
    atexit.register(gc.freeze)
