"""Imports of large libraries."""

from __future__ import annotations

import os
import signal

import pytest

from runner.common.imports import importing


def interrupted_import(done: list[str]) -> None:
    with importing(), importing():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("imported")


def test_a_request_to_stop_waits_for_the_end_of_imports() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_import(done)
        assert done == ["imported"]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)
