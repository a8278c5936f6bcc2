"""Output with one record per row, whatever the format of the input: the text and its predictions."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from runner.text.formats.base import PassagePredictions, cells_of, fields_of

TOKENS = {"tokens": "text", "tokens_b": "text_b"}  # columns of texts, and their names when they are written as text
_SPANS = pa.list_(pa.struct({"start": pa.int64(), "end": pa.int64(), "label": pa.string(), "text": pa.string()}))


@dataclass
class Records:
    """An output format, `csv`, `json` or `jsonl`, in which each row of the input is one record.

    In `jsonl` a record has the raw `text` (only if spans refer to it), `tokens` (for pairs also `tokens_b`), and the
    predictions in `added` (None: named like the predicted column) and `{added}_probability`. `json` is one list of the
    same records, one per line. In `csv` a record has `text` (for pairs also `text_b`), which is the tokens separated by
    spaces, and the same columns of predictions, after a header; lists are JSON.
    """

    form: Literal["csv", "json", "jsonl"]
    added: str | None = None
    _rows: int = field(default=0, init=False)  # number of rows written so far
    _has_header: bool = field(default=False, init=False)

    def write(self, texts: pa.Table, predictions: PassagePredictions) -> list[str]:
        """Return the lines of further records; the header comes before the first of all."""
        name = self.added or predictions.column
        tokens = {key: texts[key].to_pylist() for key in texts.column_names if key in TOKENS}
        if self.form != "csv":
            raw = {"text": texts["text"].to_pylist()} if "text" in texts.column_names else {}
            columns = {**raw, **tokens, **fields_of(predictions, name)}
            rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
            return [self._mark() + json.dumps(row, ensure_ascii=False) for row in rows]
        cells = {TOKENS[key]: [*map(" ".join, rows)] for key, rows in tokens.items()} | cells_of(predictions, name)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._has_header:
            writer.writerow(cells)
            self._has_header = True
        writer.writerows(zip(*cells.values(), strict=True))
        return text.getvalue().split("\n")[:-1]

    def _mark(self) -> str:
        """Return the characters before the next record."""
        self._rows += 1
        return "" if self.form == "jsonl" else "[" if self._rows == 1 else ","

    def end(self) -> list[str]:
        """Return the lines after the last record."""
        return [] if self.form != "json" else ["]"] if self._rows else ["[]"]


class ParquetRecords:
    """The records of `record_table` as a Parquet file, with a row group for each passage that has rows."""

    def __init__(self, sink: BinaryIO, added: str | None) -> None:
        self._sink, self._added = sink, added
        self._writer: pq.ParquetWriter | None = None

    def write(self, texts: pa.Table, predictions: PassagePredictions) -> None:
        table = record_table(texts, predictions, self._added)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, table.schema)
        if table.num_rows:
            self._writer.write_table(table)

    def close(self) -> None:
        """Write the end of the file; `sink` stays open."""
        if self._writer is not None:
            self._writer.close()


def record_table(texts: pa.Table, predictions: PassagePredictions, added: str | None = None) -> pa.Table:
    """Return the records of `Records` as a table, with unrounded numbers.

    Its columns are those of texts (`text`, `tokens`, `tokens_b`), and those of the predictions: strings, lists of
    strings or float64, and probabilities as float32, lists of float32, or a struct with a field for each label.
    """
    name = added or predictions.column
    kept = [column for column in ("text", *TOKENS) if column in texts.column_names]
    columns = {column: texts[column] for column in kept} | {name: predictions.values}
    if (probability := predictions.probability) is not None:
        if predictions.labels:
            n_labels, flat = len(predictions.labels), probability.flatten().to_numpy(zero_copy_only=False)
            by_label = [pa.array(flat[label::n_labels]) for label in range(n_labels)]
            probability = pa.StructArray.from_arrays(by_label, names=list(predictions.labels))
        columns[f"{name}_probability"] = probability
    if predictions.spans is not None:
        columns["spans"] = pa.array(predictions.spans, _SPANS)
    return pa.table(columns)
