"""Bars on a terminal: off without one, below messages, erased at the end, and harmless whatever their text."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.terminal import console, progress

ERASE = "\x1b[2K"


class Terminal:
    """A pseudo-terminal of 110 columns, which stands for stdout and stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
        self.file = open(slave, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._parts: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()

    def open(self, **instead: object) -> None:
        """Make it stdout and stderr, within a test: pytest sets both before it; then call `show_progress`."""
        for name in ("stdout", "stderr"):
            self.monkeypatch.setattr(sys, name, instead.get(name, self.file))
        progress.show_progress()

    def _read(self) -> None:
        while True:
            try:
                self._parts.append(os.read(self.master, 65536))
            except OSError:
                return

    @property
    def text(self) -> str:
        return b"".join(self._parts).decode()

    def wait_for(self, pattern: str) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if re.search(pattern, self.text):
                return self.text
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} in {self.text!r}")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    monkeypatch.setattr(progress, "_display", progress._Display())
    monkeypatch.setattr(progress, "_PERIOD_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield made
    made.file.close()


def test_a_bar_shows_how_far_work_has_come_and_leaves_nothing_behind(terminal: Terminal) -> None:
    terminal.open()
    with progress.stage("reading", total=200) as bar:
        bar.done, bar.detail = 50, "12 rows"
        shown = terminal.wait_for(r"25 %.*12 rows")
        assert "reading" in shown
    assert ERASE in terminal.wait_for(r"12 rows[^\n]*\n?.*\x1b\[2K")


def test_messages_are_printed_above_the_bar_and_whole(terminal: Terminal) -> None:
    terminal.open()
    handler, long = console._Console(), "a path that is longer than the terminal is wide: " + "/folder" * 20
    with progress.stage("delivering", 3):
        terminal.wait_for("delivering")
        for level, line in ((logging.INFO, long), (logging.WARNING, "warning: \x1b[31mred")):
            handler.handle(logging.makeLogRecord({"msg": line, "levelno": level}))
        shown = terminal.wait_for("warning: .*red(.|\n)*delivering")
    assert long in shown
    assert "\x1b[31mred" not in shown


def test_several_bars_and_rounds(terminal: Terminal) -> None:
    terminal.open()
    with progress.stage("epoch 1/2", 10) as outer:
        for number in progress.track(range(3), "evaluating", 3):
            terminal.wait_for(f"epoch 1/2(.|\n)*evaluating(.|\n)*{number * 33 + (number == 2)}")
        outer.done = 10
        terminal.wait_for("100 %")
        outer.label, outer.done = "epoch 2/2", 1
        terminal.wait_for(r"epoch 2/2[^\r\n]* 10 %")


def test_a_function_of_the_display_reads_the_counters(terminal: Terminal) -> None:
    terminal.open()
    threads = []

    def look(bar: progress.Stage) -> None:
        threads.append(threading.current_thread())
        bar.label = f"read {len(threads)} times"

    with progress.stage("at first", look=look):
        terminal.wait_for("read 3 times")
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "\x9b2J", "[red]{task.id}"])
def test_text_controls_no_terminal(terminal: Terminal, name: str) -> None:
    terminal.open()
    with progress.stage(name) as bar:
        bar.detail = f"end {name}"
        shown = terminal.wait_for("end ")
    plain = re.sub(r"\x1b\[[0-9;]*[mAK]|\r", "", shown)
    assert "\x1b" not in plain
    assert "\x07" not in shown
    assert "\x9b" not in shown
    if name.startswith("[red]"):
        assert name in plain


def test_without_colours(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.open()
    with progress.stage("evaluating", 2) as bar:
        bar.done = 1
        shown = terminal.wait_for("50 %")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


@pytest.mark.parametrize("case", ["dumb", "piped", "no terminal", "library"])
def test_there_is_no_bar_without_a_terminal(
    terminal: Terminal, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb" if case == "dumb" else "xterm")
    before = {*threading.enumerate()}  # one of another test may not have ended yet
    reader, writer = os.pipe()
    with open(reader), open(writer, "w") as pipe, (tmp_path / "log").open("w") as log:
        if case != "library":
            terminal.open(**{"piped": {"stdout": pipe}, "no terminal": {"stderr": log}}.get(case, {}))
        items = [1, 2]
        assert progress.track(items, "evaluating", 2) is items
        with progress.stage("reading") as bar:
            bar.done += 1
            time.sleep(0.05)
    assert terminal.text == ""
    assert "progress" not in {thread.name for thread in {*threading.enumerate()} - before}


def test_a_forked_process_starts_without_bars(terminal: Terminal) -> None:
    terminal.open()
    with progress.stage("search", 2):
        terminal.wait_for("search")
        progress._display.forget()
        assert progress._display.is_on
        assert sys.stdout is terminal.file
        with progress.stage("training", 2):
            terminal.wait_for("training")


def test_durations() -> None:
    assert [progress.clock(seconds) for seconds in (0, 65.9, 3599, 3661)] == ["0:00", "1:05", "59:59", "1:01:01"]
