"""A listing of a classifier's errors by kind, the most confident first.

Shapes: B rows, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.common.arrays import IntArray, SingleArray
from runner.common.printable import printable
from runner.tables.detail import count_pairs
from runner.text.formats.base import escaped
from tasks.targets import place

MOST_KINDS = 50  # pairs of gold and predicted label that are listed, the most frequent first
SHOWN = 20  # most errors listed of each kind
LONGEST_TEXT = 300  # most characters of a text
LONGEST_NAME = 100


@dataclass(frozen=True)
class LabelErrors:
    """The errors of a split with one label per row; rows whose gold id is negative have no label."""

    labels: Sequence[str]  # (C,)
    gold: IntArray  # (B,) ids
    predicted: IntArray  # (B,)
    probability: SingleArray  # (B,) of the predicted id
    table: pa.Table  # the split as read from the corpus, in the same order

    def text(self) -> str:
        """Return the text: the numbers of rows and errors, then up to `SHOWN` errors of each of `MOST_KINDS` kinds."""
        has_label = self.gold >= 0
        wrong = np.flatnonzero(has_label & (self.gold != self.predicted))
        wrong = wrong[np.argsort(-self.probability[wrong], kind="stable")]
        gold, predicted, counts = count_pairs(self.gold[wrong], self.predicted[wrong], len(self.labels))
        kinds = gold * len(self.labels) + predicted
        kind_of = np.searchsorted(kinds, self.gold[wrong] * len(self.labels) + self.predicted[wrong])
        rows = wrong[np.argsort(kind_of, kind="stable")]  # by kind, and in each the most confident first
        starts = np.cumsum(counts) - counts
        shown = np.lexsort((np.arange(len(kinds)), -self.probability[rows[starts]], -counts))[:MOST_KINDS]
        all_rows = int(has_label.sum())
        head = f"{len(wrong):,} of {all_rows:,} rows are wrong ({100 * len(wrong) / max(1, all_rows):.2f} %)"
        if len(kinds):
            head += f", in {len(kinds):,} kinds" + (f", of which {MOST_KINDS} are listed" * (len(kinds) > MOST_KINDS))
        parts = [head, "Kinds are in order of their frequency; errors in order of the prediction's probability."]
        for kind in shown.tolist():
            count, start = int(counts[kind]), int(starts[kind])
            names = " -> ".join(self._name(int(ids[kind])) for ids in (gold, predicted))
            part = f", {SHOWN} of them shown" if count > SHOWN else ""
            parts += ["", f"== {names}: {count:,}{part} =="]
            parts += [self._case(row) for row in rows[start : start + min(count, SHOWN)].tolist()]
        return printable("\n".join(parts) + "\n")

    def _name(self, label: int) -> str:
        return _cut(self.labels[label], LONGEST_NAME)

    def _case(self, row: int) -> str:
        lines = [f"\n{place(self.table, row)}  {self.probability[row]:.4f}"]
        for column, title in (("tokens", "text"), ("tokens_b", "text b")):
            if column in self.table.column_names:
                lines.append(f"  {title:6}  {_cut(' '.join(self.table[column][row].as_py()), LONGEST_TEXT)}")
        return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    """Return text for one line: cut, without tabs and line ends."""
    text = text if len(text) <= most else f"{text[:most]}..."
    line: str = escaped(pa.array([text], pa.string()))[0].as_py()
    return line
