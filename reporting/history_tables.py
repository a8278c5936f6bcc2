"""Changes since a baseline as a table, and what a reader needs to read it."""

from __future__ import annotations

from reporting.cells import NONE, Cell, Column, Table, without_empty
from reporting.history import History
from reporting.statistics import Mean

COLUMNS = [
    Column("changed", "", lambda change: Cell(change.strategy, change.heading), is_text=True),
    Column("figure", "", lambda change: Cell(change.figure, _pairs(change.difference.n)), is_text=True),
    Column("before", "", lambda change: Cell(_number(change.before))),
    Column("now", "", lambda change: Cell(_number(change.now))),
    Column("change", "", lambda change: _interval(change.difference)),
    Column("on examples", "", lambda change: _interval(change.on_examples)),
    Column("change", "%", lambda change: _interval(change.percent)),
]


def table(history: History) -> Table:
    """A row a figure and strategy."""
    rows = [[column.cell(change) for column in COLUMNS] for change in history.changes]
    return without_empty(Table(f"Changes since {history.baseline}", COLUMNS, rows))


def lines(history: History) -> list[str]:
    """Against what, how sure, what could not be compared, and each condition."""
    said = [
        f"Changes since {history.baseline}, paired by seed: now minus before, intervals at {100 * history.level:.4g} % "
        "each, so that those of all strategies hold together."
    ]
    said += [f"Not compared with the baseline: {line.removesuffix('.')}." for line in history.unmatched]
    return said + [f"{'FAILED: ' if each.failed else ''}{each.says}." for each in history.judged]


def _pairs(n: int) -> str:
    return f"{n} pair{'s' if n > 1 else ''}"


def _number(value: float) -> str:
    """Five digits, and thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def _interval(value: Mean | None) -> Cell:
    if value is None:
        return Cell(NONE)
    bounds = "" if value.low is None or value.high is None else f"{_signed(value.low)} to {_signed(value.high)}"
    return Cell(_signed(value.mean), bounds)


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"
