"""Imports of large libraries."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from runner.common.imports import importing


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_import(done: list[str]) -> None:
    with importing(), importing():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("imported")


@pytest.mark.usefixtures("interruptible")
def test_a_request_to_stop_waits_for_the_end_of_imports() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_import(done)
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_so_does_one_that_the_system_hands_to_another_thread() -> None:
    done: list[str] = []

    def take_it(number: int) -> None:
        signal.pthread_kill(threading.get_ident(), number)

    def handed_to_another_thread() -> None:
        with importing():
            other = threading.Thread(target=take_it, args=(signal.SIGINT,))
            other.start()
            other.join()
            done.append("imported")

    with pytest.raises(KeyboardInterrupt):
        handed_to_another_thread()
    assert done == ["imported"]


@pytest.mark.usefixtures("interruptible")
def test_without_a_request_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with importing():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_imports_in_another_thread_leave_the_handlers_alone() -> None:
    before, within = signal.getsignal(signal.SIGINT), []

    def import_there() -> None:
        with importing():
            within.append(signal.getsignal(signal.SIGINT))

    other = threading.Thread(target=import_there)
    other.start()
    other.join()
    assert within == [before]
