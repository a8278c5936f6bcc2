"""Tables of changes since a baseline, and the lines that explain them."""

from __future__ import annotations

from collections.abc import Callable

from reporting.comparison.changes import BaselineComparison, Change
from reporting.comparison.thresholds import SHORT
from reporting.runs.figures import amount
from reporting.statistics.intervals import Mean
from reporting.views.table_format import Cell, Table, TableColumn, filled, interval, mean, without_empty

NAMES = {figure: short for short, figure in SHORT.items()}


def tables(history: BaselineComparison) -> list[Table]:
    """Return one table per group, with a row for each strategy and figure."""
    by_heading: dict[str, list[Change]] = {}
    for change in history.changes:
        by_heading.setdefault(change.heading, []).append(change)
    level = f"± {100 * history.level:.4g} %"
    columns = [
        TableColumn("strategy", "", lambda change: Cell(change.strategy, _pairs(change.difference.n)), is_text=True),
        TableColumn("figure", "", lambda change: Cell(NAMES.get(change.figure, change.figure)), True, wraps=True),
        TableColumn("before", "", lambda change: Cell(amount(change.before, change.figure))),
        TableColumn("now", "", lambda change: Cell(amount(change.now, change.figure))),
        TableColumn("change", level, lambda change: _symmetric(change.difference, change.figure)),
        TableColumn("on examples", "", lambda change: interval(change.on_examples, _signed(change.figure)), wraps=True),
        TableColumn("change, %", level, lambda change: _symmetric(change.percent, "")),
    ]
    return [
        without_empty(filled(f"Changes since {history.baseline}: {heading}", columns, changes))
        for heading, changes in by_heading.items()
    ]


def lines(history: BaselineComparison) -> list[str]:
    """Return lines on the baseline, the level of intervals, what could not be compared, and each condition."""
    sentences = [
        f"Changes since {history.baseline}: means over runs paired by seed, now minus before; intervals at "
        f"{100 * history.level:.4g} % each, so that those of all strategies hold at once."
    ]
    sentences += [f"Not compared with the baseline: {line.removesuffix('.')}." for line in history.unmatched]
    return sentences + [f"{'FAILED: ' if verdict.failed else ''}{verdict.says}." for verdict in history.judged]


def _pairs(n: int) -> str:
    return f"{n} pair{'s' if n > 1 else ''}"


def _symmetric(value: Mean | None, figure: str) -> Cell:
    return mean(value, _signed(figure), lambda half: amount(half, figure), "no interval")


def _signed(figure: str) -> Callable[[float], str]:
    return lambda value: amount(value, figure, "+")
