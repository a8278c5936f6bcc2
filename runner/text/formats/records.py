"""Output with one record per row, whatever the format of the input: the text and its predictions."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Literal

from runner.text.formats.base import Parsed, PassagePredictions, cells_of, fields_of
from runner.text.formats.reader import Passage

TOKENS = {"tokens": "text", "tokens_b": "text_b"}  # columns of texts, and their names when they are written as text


@dataclass(frozen=True)
class Records:
    """An output format, `jsonl` or `csv`, in which each row of the input is one record.

    In `jsonl` a record has the field `tokens`, for pairs also `tokens_b`, before them the raw `text` if spans refer to
    it, and fields named `added` (None: like the predicted column) and `{added}_probability`. In `csv` it has the `text`
    (`text_b`), tokens separated by spaces, and then the same columns, with a header; lists are in JSON.
    """

    form: Literal["jsonl", "csv"]
    added: str | None = None

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        """Return the records of a passage, and before those of the first passage the header."""
        name = self.added or predictions.column
        texts = {key: parsed.table[key].to_pylist() for key in parsed.table.column_names if key in TOKENS}
        if self.form == "jsonl":
            raw = {"text": parsed.table["text"].to_pylist()} if "text" in parsed.table.column_names else {}
            columns = {**raw, **texts, **fields_of(predictions, name)}
            rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
            return [json.dumps(row, ensure_ascii=False) for row in rows]
        cells = {TOKENS[key]: [*map(" ".join, rows)] for key, rows in texts.items()} | cells_of(predictions, name)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if passage.first == 1:
            writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
        return text.getvalue().split("\n")[:-1]
