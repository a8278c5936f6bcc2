"""The results of an evaluation on the console."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.table import Table

from runner.common.rich_tables import PlainConsole, plain_table
from runner.inference.evaluation.tally import Tally

LIKELIHOOD = ("tokens", "nll", "perplexity")


def print_metrics(title: str, metrics: Mapping[str, object]) -> None:
    """Print the metrics and their tables: by label, type of span, position in a line, frequency in the training set."""
    console = PlainConsole()
    _print_numbers(console, title, metrics)
    for name in ("per_class", "per_type"):
        if rows := _rows(metrics.get(name)):
            console.print(_table(name.removeprefix("per_"), tuple(next(iter(rows.values()))), rows))
    for title, name in (("position in its line", "by_position"), ("occurrences in the training set", "by_frequency")):
        if isinstance(content := metrics.get(name), Mapping):
            console.print(_table(title, LIKELIHOOD, _bins(content)))


def print_totals(tally: Tally) -> None:
    """Print the metrics of a whole text on stderr, since those of its lines are on stdout."""
    _print_numbers(PlainConsole(file=sys.stderr), "all lines", tally.figures())


def _print_numbers(console: PlainConsole, title: str, metrics: Mapping[str, object]) -> None:
    table = plain_table("metric", title, numbers=True)
    for name, value in metrics.items():
        if isinstance(value, int | float):
            table.add_row(name, _formatted(value))
    console.print(table)


def _rows(content: object) -> dict[str, Mapping[str, object]]:
    """Return the rows of a table of details by name; none if there is no such table."""
    if not isinstance(content, Mapping):
        return {}
    return {str(name): row for name, row in content.items() if isinstance(row, Mapping)}


def _bins(content: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return the rows of a table by range, and after them its separate rows."""
    bins = content["bins"]
    assert isinstance(bins, list)
    return {_range(row["from"], row["to"]): row for row in bins} | _rows(content.get("apart"))


def _table(title: str, columns: tuple[str, ...], rows: Mapping[str, Mapping[str, object]]) -> Table:
    table = plain_table(title, *columns, numbers=True)
    for name, row in rows.items():
        table.add_row(name, *(_formatted(row[column]) for column in columns))
    return table


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _formatted(value: object) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
