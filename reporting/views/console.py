"""The comparison on the console, at least 80 columns wide; plain text without control codes if it is not a terminal."""

from __future__ import annotations

import logging
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from reporting.comparison.changes import BaselineComparison
from reporting.views import report, tables
from reporting.views.headline import conclusion
from reporting.views.report import ComparisonReport
from reporting.views.table_format import Cell, Table
from runner.terminal.rich_tables import PlainConsole

log = logging.getLogger(__name__)
NARROWEST = 80  # least width, in columns of the terminal
SPACE = 2  # width of the gap between the columns of a table
LONGEST_WORD = 16  # longer words may be broken over lines
# A comparison of more groups or runs than these is printed in short: headings and conclusions of the first groups, the
# first rows of the tables of all groups, and of a single group its first tables.
MOST_GROUPS, MOST_RUNS = 5, 200
SHORT_GROUPS, SHORT_ROWS, SHORT_TABLES = 3, 8, 2


def show(comparison: ComparisonReport) -> None:
    """Print the comparison, a large one in short."""
    console = PlainConsole(width=None)
    console.width = max(console.width, NARROWEST)
    for line in report.warnings(comparison):
        console.print(Text(f"Warning: {line}", style="bold yellow"))
    is_whole = len(comparison.groups) <= MOST_GROUPS and comparison.runs <= MOST_RUNS
    for table in report.first_tables(comparison):
        console.print()
        _print(console, table if is_whole else _first_rows(table))
    for group in comparison.groups if is_whole else comparison.groups[:SHORT_GROUPS]:
        console.print()
        console.print(Text(tables.heading(group), style="bold"))
        console.print(Text(conclusion(group, comparison.confidence), style="green"))
        if not is_whole and len(comparison.groups) > 1:
            continue
        console.print()
        for table in tables.tables(group, comparison.confidence)[: None if is_whole else SHORT_TABLES]:
            _print(console, table)
        if not is_whole:
            continue
        caveats = [f"Warning: {line}" for line in group.caveats]
        for lines, style in ((group.sentences, ""), (tables.notes(group), "dim"), (caveats, "yellow")):
            for line in lines:
                console.print(_bullet(line, style))
    if not is_whole:
        more = len(comparison.groups) - SHORT_GROUPS
        rest = f"... and {more} more group{'s' * (more > 1)}; " if more > 0 else ""
        console.print(Text(f"\n{rest}all tables, notes and warnings are in the report", style="bold"))
    console.print()
    for line in report.last_lines(comparison):
        console.print(Text(line, style="yellow"), soft_wrap=True)  # unbroken, so that a path can be copied


def print_failures(history: BaselineComparison) -> int:
    """Print a line to the error output for each condition that failed; return the exit code."""
    failures = [verdict.says for verdict in history.judged if verdict.failed]
    for line in failures:
        log.error(line)
    return int(bool(failures))


def _print(console: PlainConsole, table: Table) -> None:
    """Print at the console's width, or wider where the figures need it."""
    usual = console.width
    widths = _widths(table, usual)
    title = Text(table.title, style="italic")
    shown = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, width in zip(table.columns, widths, strict=True):
        head = _stacked(Cell(column.header, column.unit))
        shown.add_column(head, justify="left" if column.is_text else "right", width=width, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(_stacked, row))
    console.width = max(usual, sum(widths) + SPACE * len(widths))
    console.print(shown)
    console.width = usual


def _first_rows(table: Table) -> Table:
    if len(table.rows) <= SHORT_ROWS:
        return table
    title = f"{table.title} (the first {SHORT_ROWS} of {len(table.rows)} rows)"
    return replace(table, title=title, rows=table.rows[:SHORT_ROWS])


def _widths(table: Table, room: int) -> list[int]:
    """Return the width of each column in characters. Text wraps if `room` is short, figures never do."""
    widths, narrowest = [], []
    for place, column in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        lines = [column.header, column.unit, *(line for cell in cells for line in (cell.main, cell.detail))]
        word = max(cell_len(word) for line in lines for word in line.split() or [""])
        widths.append(max(map(cell_len, lines)))
        narrowest.append(min(LONGEST_WORD, word) if column.wraps or column.is_text else widths[-1])
    # Take characters one by one from the column with most to spare, until the table fits or none can shrink.
    while sum(widths) + SPACE * len(widths) > room and widths != narrowest:
        widest = max(range(len(widths)), key=lambda place: widths[place] - narrowest[place])
        widths[widest] -= 1
    return widths


def _stacked(cell: Cell) -> Text:
    text = Text(cell.main)
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def _bullet(line: str, style: str = "") -> RichTable:
    """Return a line with a dash, with wrapped text aligned after the dash."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row("-", Text(line, style=style))
    return grid
