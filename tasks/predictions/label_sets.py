"""The inspector of a task with a set of labels per row.

Shapes: B rows, C labels that can be predicted, V labels with those that the training set lacks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.common.files import write_text
from runner.interfaces import Corpus, Predictions
from runner.ragged.batch import Batch
from runner.text.arrow import list_column
from tasks.metrics.metrics import by_name
from tasks.metrics.tables import calibration
from tasks.targets import label_sets, place


@dataclass(frozen=True)
class LabelSetInspector:
    """The inspector of a task with a set of labels per row."""

    labels: tuple[str, ...]  # (V,)
    thresholds: FloatArray  # (C,) probability from which a label is predicted
    column: Literal["labels"] = "labels"

    def decode(self, values: BoolArray, offsets: IntArray) -> pa.Array:
        """Return the lists of labels (B,) of sets (B, C) or (B, V), in the order of the vocabulary."""
        ends = np.concatenate(([0], values.sum(axis=1).cumsum()))
        return list_column(pa.array(self.labels, pa.string()).take(pa.array(np.nonzero(values)[1])), ends)

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return the `calibration` of the probability of each label in each row: how often rows have the label.

        The table `per_class` of the metric gets a column: the `threshold` of each label, null if none can predict it.
        """
        assert predictions.probability is not None
        gold, found = label_sets(split, len(self.labels)).numpy(), predictions.sets
        known = gold[:, : found.shape[1]]
        right, predicted = np.zeros((2, len(self.labels)), dtype=np.int64)
        right[: found.shape[1]], predicted[: found.shape[1]] = (found & known).sum(axis=0), found.sum(axis=0)
        thresholds = [*self.thresholds.tolist(), *[None] * (len(self.labels) - len(self.thresholds))]
        per_class = by_name(self.labels, right, predicted, gold.sum(axis=0))
        return {
            "per_class": per_class.append_column("threshold", pa.array(thresholds, pa.float64())),
            "calibration": calibration(predictions.probability.ravel(), known.ravel()),
        }

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.jsonl`: gold and predicted labels of each row, with their probabilities, and its place."""
        assert predictions.probability is not None
        both = (label_sets(split, len(self.labels)).numpy(), predictions.sets)
        golds, predicted = (self.decode(sets, split.rows.host_offsets).to_pylist() for sets in both)
        ids = {label: number for number, label in enumerate(self.labels[: predictions.sets.shape[1]])}
        lines = []
        for row, (gold, found) in enumerate(zip(golds, predicted, strict=True)):
            named = sorted({*gold, *found} & ids.keys(), key=ids.__getitem__)
            probability = {label: round(float(predictions.probability[row, ids[label]]), 6) for label in named}
            record = {"gold": gold, "predicted": found, "probability": probability, "place": place(table, row)}
            lines.append(json.dumps(record, ensure_ascii=False))
        write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n")
