"""Tables of text, shared by the console, Markdown and HTML. This is the only place where figures are rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reporting.statistics.intervals import Mean, Ratio, Spread, TimeToTarget
from runner.common.pages import markdown_text
from runner.common.printable import printable

NONE = "—"
_FORMULA = ("=", "+", "-", "@", "\t", "\n")  # a spreadsheet may take a cell that begins so for a formula
whole, tenths = "{:,.0f}".format, "{:,.1f}".format  # 1,235 and 1,234.5


@dataclass(frozen=True)
class Cell:
    """A figure, and its uncertainty or a remark in smaller type below it."""

    main: str
    detail: str = ""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table, with the function that makes its cells."""

    header: str
    unit: str
    cell: Callable[[Any], Cell]  # makes the cell from the object of a row, usually a strategy
    is_text: bool = False
    wraps: bool = False  # long text may wrap


@dataclass(frozen=True)
class Table:
    """A table whose cells are text."""

    title: str
    columns: list[TableColumn]
    rows: list[list[Cell]]


def filled(title: str, columns: list[TableColumn], items: Iterable[object]) -> Table:
    """Return a table with a row for each item."""
    return Table(title, columns, [[column.cell(item) for column in columns] for item in items])


def without_empty(table: Table) -> Table:
    """Return the table without the columns that have no figure in any row."""
    empty = (Cell(NONE), Cell(""))
    kept = [place for place in range(len(table.columns)) if any(row[place] not in empty for row in table.rows)]
    columns = [table.columns[place] for place in kept]
    return Table(table.title, columns, [[row[place] for place in kept] for row in table.rows])


def markdown(table: Table) -> str:
    """Return the table in GitHub-flavoured Markdown, with all names escaped."""
    heads = [
        markdown_text(f"{column.header} ({column.unit})" if column.unit else column.header) for column in table.columns
    ]
    lines = [heads, ["---" if column.is_text else "---:" for column in table.columns]]
    lines += [[markdown_text(_one_line(cell)) for cell in row] for row in table.rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{markdown_text(table.title)}**\n\n{text}" if table.title else text


def _one_line(cell: Cell) -> str:
    """Return `41.00 ± 1.20` or `13,000 (12,750–13,250)`."""
    if not cell.detail or cell.detail.startswith("±"):
        return f"{cell.main} {cell.detail}".strip()
    return f"{cell.main} ({cell.detail})"


def csv_cell(value: object) -> object:
    """Return the value of a cell, without control characters; an apostrophe precedes what a spreadsheet would compute.

    A number stays as it is, also one with a sign.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(_FORMULA) else text
    return text


def decimal(value: float, unit: str) -> str:
    """Return percentages to 0.01, figures of another unit (losses, perplexities) to 0.001."""
    return f"{value:,.{2 if unit == '%' else 3}f}"


def signed(value: float, unit: str) -> str:
    """Return a difference with its sign; one that rounds to 0 is positive."""
    text = decimal(value, unit).removeprefix("-")
    return f"{'-' if value < 0 and text.strip('0.') else '+'}{text}"


def mean(
    value: Mean | None, text: Callable[[float], str], half_width: Callable[[float], str], alone: str = "one seed"
) -> Cell:
    """Return the mean with half the width of its interval, which is symmetric; or with `alone` if it has none."""
    if value is None:
        return Cell(NONE)
    low, high = value.bounds or (0.0, 0.0)
    return Cell(text(value.mean), f"± {half_width((high - low) / 2)}" if value.bounds else alone)


def interval(value: Mean | None, text: Callable[[float], str]) -> Cell:
    """Return both ends of a difference's interval in the same type size, since neither is the difference."""
    return Cell(" to ".join(map(text, value.bounds)) if value and value.bounds else NONE)


def spread(value: Spread | None, text: Callable[[float], str]) -> Cell:
    """Return a median with its range."""
    return Cell(NONE) if value is None else Cell(text(value.median), _range(value.low, value.high, text))


def ratio(value: Ratio | None) -> Cell:
    """Return a ratio with its interval."""
    if value is None:
        return Cell(NONE)
    return Cell(times(value.mean), _range(*value.bounds, times) if value.bounds else "")


def reached(when: TimeToTarget, text: Callable[[float], str]) -> Cell:
    """Return the median time to a target, with its range or with how many runs reached it."""
    count = f"{when.reached} of {when.n} runs" if when.reached < when.n else ""
    if when.median is None or when.low is None or when.high is None:
        return Cell(NONE, count)
    return Cell(text(when.median), count or _range(when.low, when.high, text))


def times(value: float) -> str:
    """Return a ratio to about three digits: `0.004`, `1.23`, `45.6`, `4,388`."""
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.{int(value < 100)}f}"


def seconds(value: float) -> str:
    """Return seconds to 0.1, below 1 to 0.01."""
    return f"{value:.2f}" if value < 1 else tenths(value)


def percent(share: float | None) -> str:
    """Return a share (0..1) in percent, with a further digit below 1 % so that small shares do not look like 0."""
    if share is None:
        return NONE
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _range(low: float, high: float, text: Callable[[float], str]) -> str:
    """Return `low–high`; empty if both ends have the same text."""
    return f"{text(low)}–{text(high)}" if text(low) != text(high) else ""
