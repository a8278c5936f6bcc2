"""A pool of threads, each of which waits for the process of one job at a time."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from runner.sweeps.process import INTERRUPTED
from runner.sweeps.slots import Slot

log = logging.getLogger(__name__)


class Pool:
    """Work for several slots at a time. With one slot it is done at once, in the thread that adds it."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self.stopping = threading.Event()  # work in other threads ends with KeyboardInterrupt when this is set
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(len(self.slots)) if self.is_parallel else None
        self._added: list[Future[None]] = []

    @property
    def is_parallel(self) -> bool:
        """True for several slots."""
        return len(self.slots) > 1

    def add(self, work: Callable[[Slot], None]) -> None:
        """Call `work` with the next slot that is free; work begins in the order in which it was added."""
        if self._threads is None:
            work(self.slots[0])
        else:
            self._added.append(self._threads.submit(self._in_slot, work))

    def _in_slot(self, work: Callable[[Slot], None]) -> None:
        slot = self._free.get()
        try:
            work(slot)
        finally:
            self._free.put(slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all work; if this process was interrupted, end it."""
        if self._threads is None:
            return
        try:
            if kind is None or not issubclass(kind, KeyboardInterrupt):
                for future in self._added:
                    future.result()
        finally:
            self.stopping.set()
            try:
                self._threads.shutdown(cancel_futures=True)
            except KeyboardInterrupt:  # a second request: the jobs end at once when this process does
                log.error("interrupted")
                os._exit(INTERRUPTED)
