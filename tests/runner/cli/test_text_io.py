"""Predictions and generated text: byte for byte in files and pipes, without commands on a terminal."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from runner.cli.predict import _put
from runner.cli.text_io import print_data

EVIL = "a\x1b]0;owned\x07\tb \x9b2J \u202e é"
SHOWN = "a\ufffd]0;owned\ufffd\tb \ufffd2J \ufffd é"


def test_a_terminal_gets_no_commands_and_a_file_every_byte(tmp_path: Path) -> None:
    options = Namespace(encoding="utf-8")
    master, slave = os.openpty()
    with open(slave, "wb", buffering=0) as terminal, open(master, "rb", buffering=0) as screen:
        _put(terminal, [EVIL], options)
        assert screen.read(1000).decode() == f"{SHOWN}\r\n"
    with (tmp_path / "file").open("wb") as file:
        _put(file, [EVIL], options)
    assert (tmp_path / "file").read_bytes() == f"{EVIL}\n".encode()


@pytest.mark.parametrize(("terminal", "expected"), [(True, SHOWN), (False, EVIL)])
def test_generated_text_is_changed_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, expected: str
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", out)
    print_data(EVIL, end="")
    print_data("\x1b[2J")
    assert out.getvalue() == expected + ("\ufffd[2J\n" if terminal else "\x1b[2J\n")
