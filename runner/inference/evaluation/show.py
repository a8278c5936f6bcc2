"""The results of an evaluation on the console."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pyarrow as pa
from rich.table import Table

from runner.inference.evaluation.tally import Tally
from runner.tables.detail import NAMES, PAIRS, SCORES, largest, most_confused
from runner.terminal.rich_tables import PlainConsole, plain_table

LIKELIHOOD = ("tokens", "nll", "perplexity")
MOST_NAMES, MOST_PAIRS = 40, 20  # rows of a table on the console


def print_metrics(title: str, metrics: Mapping[str, object]) -> None:
    """Print the metrics and their tables: by label, type of span, position in a line, frequency in the training set.

    Of many labels the most frequent are printed, and of pairs of labels those that are confused most.
    """
    console = PlainConsole()
    _print_numbers(console, title, metrics)
    for name, value in metrics.items():
        if isinstance(value, pa.Table) and value.num_rows:
            _print_table(console, name, value)
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


def _print_table(console: PlainConsole, name: str, table: pa.Table) -> None:
    """Print a table of names or of pairs, or a part of it with the number of rows that are left out."""
    if table.schema.names == PAIRS.names:
        shown, all_rows, which = (
            most_confused(table, MOST_PAIRS),
            most_confused(table, table.num_rows),
            "confused pairs",
        )
    elif table.schema.names == SCORES.names:
        shown = table if table.num_rows <= MOST_NAMES else largest(table, "support", MOST_NAMES)
        all_rows, which = table, "names, the most frequent first"
    else:
        return
    if not shown.num_rows:
        return
    first, *others = shown.schema.names
    grid = plain_table(name.removeprefix("per_") if first == NAMES.name else first, *others, numbers=True)
    for row in shown.to_pylist():
        grid.add_row(*(value if isinstance(value, str) else _formatted(value) for value in row.values()))
    console.print(grid)
    if shown.num_rows < all_rows.num_rows:
        console.print(f"{shown.num_rows} of {all_rows.num_rows:,} {which}; --json FILE has all\n")


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
