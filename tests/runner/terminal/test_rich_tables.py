"""Tables on the console: names are shown as they are, but none of them commands the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.text import Text

from runner.terminal.rich_tables import PlainConsole, plain_table

EVIL = "n\x1b]8;;http://x\x1b\\\x9b2Jz"
SHOWN = "n\ufffd]8;;http://x\ufffd\\\ufffd2Jz"


@pytest.mark.parametrize("terminal", [True, False])
def test_no_text_commands_the_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    out = io.StringIO()
    console = PlainConsole(file=out)
    table = plain_table("name", f"head {EVIL}", numbers=True)
    table.title = f"title {EVIL}"
    table.add_row(f"cell {EVIL}", Text(f"text {EVIL}", style="bold"))
    console.print(table)
    console.print(f"line {EVIL} [red]", style="yellow")
    console.print(Text(f"styled {EVIL}", style="green"), soft_wrap=True)
    shown = out.getvalue()
    assert ("\x1b[" in shown) == terminal
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)  # rich's own styles
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", plain)
    unfolded = re.sub(r"\s+", "", plain)
    for text in ("title", "line", "styled"):
        assert f"{text}{SHOWN}" in unfolded
    assert plain.count("z") == 6, "wider than rich measures, but nothing is cut"
    assert "[red]" in plain
