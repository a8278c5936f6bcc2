"""Requests to stop: SIGINT (Ctrl+C), SIGTERM, and SIGUSR1 and SIGUSR2, which Slurm sends ahead of its time limit.

A request raises KeyboardInterrupt, except within `deferred`: there it is only noted, so that work in progress can
finish. A second SIGINT or SIGTERM raises it at once. A second SIGUSR1 or SIGUSR2 changes nothing: a command passes
requests on to its jobs, which may have had the same one from a terminal or from Slurm. Nor does a first SIGTERM after
SIGUSR2: Slurm sends it when submitit, which had SIGUSR2 as well, puts the job back into the queue.
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
        self.asked = ""  # the request to this process in words; empty while there is none
        self.reason = ""  # the request that `check` raises: `asked`, or what several processes have agreed on
        self._deferred = self._shared = self._is_requeued = False

    def heed(self) -> None:
        """Handle the signals from now on; those that this process was started to ignore (nohup) stay ignored."""
        self.asked = self.reason = ""
        for number in (*_INSIST, *_ASK):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_INSIST, *_ASK))  # those that `waiting` has held back

    def ignore(self) -> None:
        """Ignore the signals from now on, in a process that ends in any case and still writes why."""
        for number in (*_INSIST, *_ASK):
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self, shared: bool = False) -> Iterator[None]:
        """Within the context, a first request is only noted, and `check` raises it.

        If it is `shared`, `check` knows it only after `agree`, which several processes call at the same point.
        """
        self._deferred, self._shared = True, shared
        try:
            yield
        finally:
            self._deferred = self._shared = False

    def agree(self) -> None:
        """Let `check` raise from now on, since this process or another of the same run was asked to stop."""
        self.reason = self.asked or "another rank was asked to stop"

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a request."""
        if self.reason:
            raise KeyboardInterrupt(self.reason)

    def _receive(self, number: int, frame: object) -> None:
        is_first = not self.asked
        if is_first:
            self.asked = f"stopped by {signal.Signals(number).name}"
            self._is_requeued = number == signal.SIGUSR2
        elif self._is_requeued and number == signal.SIGTERM:
            self._is_requeued = False
            return
        if not self._shared:
            self.reason = self.asked
        if is_first and self._deferred:
            return
        if is_first or number in _INSIST:
            raise KeyboardInterrupt(self.asked)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Within the context, requests to this thread wait; a process that it starts gets its own when it heeds them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_INSIST, *_ASK))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


interruption = Interruption()
