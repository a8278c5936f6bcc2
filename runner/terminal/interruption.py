"""Requests to stop: SIGINT (Ctrl+C), SIGTERM, and SIGUSR1 and SIGUSR2, which Slurm sends ahead of its time limit.

A request raises KeyboardInterrupt, except within `deferred`: there it is only noted, so that work in progress can
finish. A second SIGINT or SIGTERM raises it at once. A second SIGUSR1 or SIGUSR2 changes nothing: a command passes
requests on to its jobs, which may have had the same one from a terminal or from Slurm.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_ASK, _INSIST = (signal.SIGUSR1, signal.SIGUSR2), (signal.SIGINT, signal.SIGTERM)
PASSED_ON = signal.SIGUSR1  # the signal that a command sends to its jobs


class Interruption:
    """The request to stop this process, if there was one."""

    def __init__(self) -> None:
        self.reason = ""  # the request in words; empty while there is none
        self._deferred = False

    def heed(self) -> None:
        """Handle the signals from now on; those that this process was started to ignore (nohup) stay ignored."""
        self.reason = ""
        for number in (*_INSIST, *_ASK):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the context, a first request is only noted, and `check` raises it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a request."""
        if self.reason:
            raise KeyboardInterrupt(self.reason)

    def _receive(self, number: int, frame: object) -> None:
        is_first = not self.reason
        if is_first:
            self.reason = f"stopped by {signal.Signals(number).name}"
        if is_first and self._deferred:
            return
        if is_first or number in _INSIST:
            raise KeyboardInterrupt(self.reason)


interruption = Interruption()
