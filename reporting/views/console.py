"""The comparison on the console, 80 columns or wider; plain text without control codes when it is not a terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reporting.comparison.changes import History
from reporting.views import report, tables
from reporting.views.headline import answer
from reporting.views.report import Report
from reporting.views.table_format import Cell, Table

NARROWEST = 80
SPACE = 2  # between columns
LONGEST_WORD = 16  # that stays in one piece


def show(made: Report) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a console that lacks ± still shows the figures
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, NARROWEST)
    for table in report.first_tables(made):
        console.print()
        _print(console, table)
    for group in made.groups:
        console.print()
        console.print(Text(tables.heading(group), style="bold"))
        console.print(Text(answer(group), style="green"))
        console.print()
        for table in tables.tables(group, made.confidence):
            _print(console, table)
        for line in group.sentences:
            console.print(_bullet(line))
        for line in tables.notes(group):
            console.print(_bullet(line, "dim"))
        for line in group.caveats:
            console.print(_bullet(f"Beware: {line}", "yellow"))
    console.print()
    for line in report.last_lines(made):
        console.print(Text(line, style="yellow"), soft_wrap=True)  # a path is copied whole


def judgement(history: History) -> int:
    """A line to the error output for each condition that failed; the exit code."""
    failed = [each.says for each in history.judged if each.failed]
    for line in failed:
        print(line, file=sys.stderr)
    return int(bool(failed))


def _print(console: Console, table: Table) -> None:
    """At the console's width, or wider where the figures need it."""
    usual = console.width
    widths = _widths(table, usual)
    console.width = max(usual, sum(widths) + SPACE * len(widths))
    console.print(_table(table, widths))
    console.width = usual


def _table(table: Table, widths: list[int]) -> RichTable:
    title = Text(table.title, style="italic")
    shown = RichTable(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True
    )
    for column, width in zip(table.columns, widths, strict=True):
        shown.add_column(
            _stacked(Cell(column.header, column.unit)),
            justify="left" if column.is_text else "right",
            width=width,
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*[_stacked(cell) for cell in row])
    return shown


def _widths(table: Table, room: int) -> list[int]:
    """Characters of each column: text goes on in the next line where `room` is short, figures never do.

    Half of a figure would be another figure.
    """
    widths, least = [], []
    for at, column in enumerate(table.columns):
        lines = [column.header, column.unit, *(line for row in table.rows for line in (row[at].main, row[at].detail))]
        word = max(cell_len(word) for line in lines for word in line.split() or [""])
        widths.append(max(map(cell_len, lines)))
        least.append(min(LONGEST_WORD, word) if column.wraps or column.is_text else widths[-1])
    while sum(widths) + SPACE * len(widths) > room and widths != least:
        most = max(range(len(widths)), key=lambda at: widths[at] - least[at])
        widths[most] -= 1
    return widths


def _stacked(cell: Cell) -> Text:
    text = Text(cell.main)
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def _bullet(line: str, style: str = "") -> RichTable:
    """A line that wraps under itself, not under its dash."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row("-", Text(line, style=style))
    return grid
