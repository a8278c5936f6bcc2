"""The inspector of a task with a number per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from torch import Tensor

from runner.common.arrays import FloatArray, IntArray
from runner.common.files import write_text
from runner.interfaces import Corpus, Predictions
from runner.ragged.batch import Batch
from tasks.targets import place


@dataclass(frozen=True)
class NumberInspector:
    """The inspector of a task with a number per row."""

    column: Literal["value"] = "value"

    def decode(self, values: FloatArray, offsets: IntArray) -> pa.Array:
        """Return the numbers (B,)."""
        return pa.array(values, pa.float64())

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return no tables: the metric has all figures."""
        return {}

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.tsv`: gold and predicted number of each row, the error, and its place, in the split's order."""
        assert isinstance(split.target, Tensor)
        lines = ["gold\tpredicted\terror\tplace"]
        numbers = zip(split.index.tolist(), split.target.tolist(), predictions.numbers.tolist(), strict=True)
        for row, gold, predicted in numbers:
            lines.append(f"{gold!r}\t{predicted:.15g}\t{predicted - gold:.7g}\t{place(table, row)}")
        write_text(folder / f"{name}.tsv", "\n".join(lines) + "\n")
