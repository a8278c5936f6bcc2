"""The results of an evaluation on the console."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runner.inference.evaluation.tally import Tally

WIDEST = 1000  # console width in columns; a table takes what it needs


def console(title: str, metrics: Mapping[str, Any]) -> None:
    """Print the metrics and their tables: by label, type of span, position in a line, frequency in the training set."""
    out = Console(width=WIDEST, markup=False, highlight=False, emoji=False)
    _print_numbers(out, title, metrics)
    for name in ("per_class", "per_type"):
        if metrics.get(name):
            table = _table(name.removeprefix("per_"), *next(iter(metrics[name].values())))
            for label, row in metrics[name].items():
                table.add_row(label, *(_formatted(value) for value in row.values()))
            out.print(table)
    if "by_position" in metrics:
        out.print(_bins("place in its line", metrics["by_position"]))
        out.print(_bins("occurrences in train", metrics["by_frequency"]))


def totals(tally: Tally) -> None:
    """Print the metrics of a whole text on stderr, since those of its lines are on stdout."""
    out = Console(width=WIDEST, markup=False, highlight=False, emoji=False, file=sys.stderr)
    _print_numbers(out, "all lines", tally.figures())


def _print_numbers(out: Console, title: str, metrics: Mapping[str, Any]) -> None:
    table = Table("figure", title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        if isinstance(value, int | float):
            table.add_row(name, _formatted(value))
    out.print(table)


def _bins(title: str, content: Mapping[str, Any]) -> Table:
    table = _table(title, "tokens", "nll", "perplexity")
    rows = {_range(row["from"], row["to"]): row for row in content["bins"]} | content.get("apart", {})
    for name, row in rows.items():
        table.add_row(name, *(_formatted(row[column]) for column in ("tokens", "nll", "perplexity")))
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _formatted(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
