"""Tables of text: made once for the console, Markdown and HTML. Figures are rounded here alone."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reporting.statistics.intervals import Mean, Ratio, Reached, Spread
from runner.common.run_schema import LOWER_IS_BETTER

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """A figure, and below it, smaller, how sure it is."""

    main: str
    detail: str = ""


@dataclass(frozen=True)
class Column:
    header: str
    unit: str
    cell: Callable[[Any], Cell]  # of what its table has rows for: strategies, mostly
    is_text: bool = False
    wraps: bool = False  # long text may go on in the next line


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[Column]
    rows: list[list[Cell]]


def without_empty(table: Table) -> Table:
    """Without the columns that have no figure in any row: a column of dashes says nothing."""
    kept = [at for at in range(len(table.columns)) if any(row[at] not in (Cell(NONE), Cell("")) for row in table.rows)]
    columns = [table.columns[at] for at in kept]
    return Table(table.title, columns, [[row[at] for at in kept] for row in table.rows])


def markdown(table: Table) -> str:
    """A table of GitHub-flavoured Markdown; whatever a name holds, it stays text."""
    heads = [escape(f"{column.header} ({column.unit})" if column.unit else column.header) for column in table.columns]
    lines = [heads, ["---" if column.is_text else "---:" for column in table.columns]]
    lines += [[escape(_in_line(cell)) for cell in row] for row in table.rows]
    shown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{escape(table.title)}**\n\n{shown}" if table.title else shown


def _in_line(cell: Cell) -> str:
    """`41.00 ± 1.20`, `13,000 (12,750–13,250)`."""
    if not cell.detail or cell.detail.startswith("±"):
        return f"{cell.main} {cell.detail}".strip()
    return f"{cell.main} ({cell.detail})"


def escape(text: str) -> str:
    """`text` as one line of Markdown that shows it as it is."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("`", "\\`")


def decimal(value: float, metric: str) -> str:
    """Percentages to 0.01; losses and perplexities to 0.001."""
    return f"{value:,.{3 if metric in LOWER_IS_BETTER else 2}f}"


def signed(value: float, metric: str) -> str:
    return ("+" if value >= 0 else "") + decimal(value, metric)


def mean(value: Mean | None, metric: str, text: Callable[[float, str], str]) -> Cell:
    """With the half width of its interval, which is symmetric."""
    if value is None:
        return Cell(NONE)
    if value.low is None or value.high is None:
        return Cell(text(value.mean, metric), "one seed")
    return Cell(text(value.mean, metric), f"± {decimal((value.high - value.low) / 2, metric)}")


def interval(value: Mean | None, metric: str) -> Cell:
    """Of a difference; both ends are equally large, since neither is the difference."""
    if value is None or value.low is None or value.high is None:
        return Cell(NONE)
    return Cell(f"{signed(value.low, metric)} to {signed(value.high, metric)}")


def spread(value: Spread | None, text: Callable[[float], str]) -> Cell:
    return Cell(NONE) if value is None else Cell(text(value.median), _range(value.low, value.high, text))


def ratio(value: Ratio | None) -> Cell:
    if value is None or value.low is None or value.high is None:
        return Cell(times(value.mean) if value else NONE)
    return Cell(times(value.mean), _range(value.low, value.high, times))


def reached(when: Reached, text: Callable[[float], str]) -> Cell:
    some = f"{when.reached} of {when.n} runs" if when.reached < when.n else ""
    if when.median is None or when.low is None or when.high is None:
        return Cell(NONE, some)
    return Cell(text(when.median), some or _range(when.low, when.high, text))


def times(value: float) -> str:
    """A ratio; 0.004 is not 0.00, and of 4,388.21 nobody needs the rest."""
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.{int(value < 100)}f}"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def tenths(value: float) -> str:
    return f"{value:,.1f}"


def thousands(value: float) -> str:
    return tenths(value / 1000)


def seconds(value: float) -> str:
    return f"{value:.2f}" if value < 1 else tenths(value)


def percent(share: float | None) -> str:
    """A share that is not 0 does not look like it."""
    if share is None:
        return NONE
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _range(low: float, high: float, text: Callable[[float], str]) -> str:
    """Nothing where both ends read the same."""
    return f"{text(low)}–{text(high)}" if text(low) != text(high) else ""
