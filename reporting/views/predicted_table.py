"""The table of what was predicted of speed and memory, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.comparison.predicted import Prediction
from reporting.runs.figures import MIB
from reporting.views import table_format
from reporting.views.table_format import NONE, Cell, Column, Table


def advice_table(found: Sequence[Prediction]) -> Table | None:
    """A row a prediction, with the error of each; None where nothing was predicted."""
    if not found:
        return None
    columns = [
        Column("strategy", "", lambda one: Cell(one.name, "chosen" if one.chosen else ""), is_text=True),
        Column("batch", "size", lambda one: Cell(NONE if one.batch_size is None else str(one.batch_size))),
        Column("predicted", "tokens/s", lambda one: Cell(table_format.whole(one.predicted_tokens_per_s))),
        Column("measured", "tokens/s", lambda one: _figure(one.tokens_per_s, 1)),
        Column("error", "speed, %", lambda one: _error(one.predicted_tokens_per_s, one.tokens_per_s)),
        Column("predicted", "MiB", lambda one: _figure(one.predicted_peak_bytes, MIB)),
        Column("measured", "MiB", lambda one: _figure(one.peak_bytes, MIB)),
        Column("error", "peak, %", lambda one: _error(one.predicted_peak_bytes, one.peak_bytes)),
    ]
    rows = [[column.cell(one) for column in columns] for one in found]
    return table_format.without_empty(Table("Predicted and measured", columns, rows))


def _figure(value: float | None, unit: float) -> Cell:
    return Cell(NONE if value is None else table_format.whole(value / unit))


def _error(predicted: float, measured: float | None) -> Cell:
    """Of the prediction, in percent of what was measured."""
    return Cell(f"{100 * (predicted / measured - 1):+.0f}" if measured else NONE)
