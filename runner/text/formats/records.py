"""Output with one record per row, whatever the format of the input: the text and its predictions."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Literal

from runner.text.formats.base import Parsed, PassagePredictions, cells_of, fields_of
from runner.text.formats.reader import Passage


@dataclass(frozen=True)
class Records:
    """An output format, `jsonl` or `csv`, in which each row of the input is one record.

    In `jsonl` a record has the field `tokens`, and fields named `added` (None: like the predicted column) and
    `{added}_probability`. In `csv` it has the text, tokens separated by spaces, and then the same columns, with a
    header; lists are in JSON. Line ends inside of a field, in quotes, do not end the record.
    """

    form: Literal["jsonl", "csv"]
    added: str | None = None

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        """Return the records of a passage, and before those of the first passage the header."""
        name = self.added or predictions.column
        tokens = parsed.table["tokens"].to_pylist()
        if self.form == "jsonl":
            columns = {"tokens": tokens, **fields_of(predictions, name)}
            rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
            return [json.dumps(row, ensure_ascii=False) for row in rows]
        cells = {"text": map(" ".join, tokens), **cells_of(predictions, name)}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if passage.first == 1:
            writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
        return text.getvalue().split("\n")[:-1]
