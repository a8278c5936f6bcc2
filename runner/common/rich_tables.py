"""Tables on the console: never truncated at any width of the terminal, with names printed unchanged."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

WIDEST = 1000  # width in columns; a table takes what it needs


def wide_console(file: TextIO | None = None) -> Console:
    """Return a console on `file`, or on standard output, which replaces characters that its encoding lacks."""
    if file is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=WIDEST, markup=False, highlight=False, emoji=False, file=file)


def plain_table(*columns: str, numbers: bool = False) -> Table:
    """Return an empty table with these columns; `numbers`: all but the first are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if numbers and place else "left")
    return table
