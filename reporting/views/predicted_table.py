"""The table of predicted and measured speed and memory."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.comparison.predicted import Prediction
from reporting.runs.figures import MIB
from reporting.views import table_format
from reporting.views.table_format import NONE, Cell, Table, TableColumn


def advice_table(predictions: Sequence[Prediction]) -> Table | None:
    """Return a row for each prediction, with its errors; None if there are no predictions."""
    if not predictions:
        return None
    columns = [
        TableColumn("strategy", "", lambda row: Cell(row.name, "chosen" if row.chosen else ""), is_text=True),
        TableColumn("batch", "size", lambda row: Cell(NONE if row.batch_size is None else str(row.batch_size))),
        TableColumn("predicted", "tokens/s", lambda row: Cell(table_format.whole(row.predicted_tokens_per_s))),
        TableColumn("measured", "tokens/s", lambda row: _figure(row.tokens_per_s, 1)),
        TableColumn("error", "speed, %", lambda row: _error(row.predicted_tokens_per_s, row.tokens_per_s)),
        TableColumn("predicted", "MiB", lambda row: _figure(row.predicted_peak_bytes, MIB)),
        TableColumn("measured", "MiB", lambda row: _figure(row.peak_bytes, MIB)),
        TableColumn("error", "peak, %", lambda row: _error(row.predicted_peak_bytes, row.peak_bytes)),
    ]
    rows = [[column.cell(prediction) for column in columns] for prediction in predictions]
    return table_format.without_empty(Table("Predicted and measured", columns, rows))


def _figure(value: float | None, unit: float) -> Cell:
    return Cell(NONE if value is None else table_format.whole(value / unit))


def _error(predicted: float, measured: float | None) -> Cell:
    """Return the error of the prediction, in percent of the measurement."""
    return Cell(f"{100 * (predicted / measured - 1):+.0f}" if measured else NONE)
