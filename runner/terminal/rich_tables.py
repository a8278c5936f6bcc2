"""Tables on the console: never truncated at any width of the terminal, with names printed unchanged."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable
from typing import TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from runner.common.printable import printable

WIDEST = 1000  # width in columns; a table takes what it needs


class PlainConsole(Console):
    """A console that does not interpret markup and makes all text `printable`.

    It writes to `file`, by default to standard output, and replaces characters that the encoding lacks.
    """

    def __init__(self, width: int | None = WIDEST, file: TextIO | None = None) -> None:
        if file is None and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        super().__init__(width=width, markup=False, highlight=False, emoji=False, file=file)

    def on_broken_pipe(self) -> None:
        """Write nothing from then on, as rich does, and raise BrokenPipeError instead of ending the program."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does. Plain text, of which all else is composed, is made printable first."""
        if isinstance(renderable, str):
            renderable = printable(renderable)
        elif isinstance(renderable, Text):
            renderable = renderable.copy()
            renderable.plain = printable(renderable.plain)
        return super().render(renderable, options)


def plain_table(*columns: str, numbers: bool = False) -> Table:
    """Return an empty table with these columns; `numbers`: all but the first are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if numbers and place else "left", overflow="fold")
    return table
