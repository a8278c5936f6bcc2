"""A readable listing of span errors: place, gold and predicted span, and the surrounding words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.common.arrays import IntArray
from tasks.metrics.metrics import by_name
from tasks.spans.errors import KINDS, RIGHT, Comparison
from tasks.targets import place

SHOWN = 50  # most errors listed of each kind, spread over the text
AROUND = 12  # tokens of context on either side
MEANING = {
    "boundary": "correct type, wrong bounds",
    "type": "correct bounds, wrong type",
    "both": "wrong bounds and wrong type, with common tokens",
    "missed": "gold span without a matching prediction",
    "spurious": "predicted span without a matching gold span",
}


@dataclass(frozen=True)
class Listing:
    """A listing of the span errors of a split.

    Attributes:
        compared: the gold and predicted spans.
        offsets: (B+1,) start of each row among the tokens, and their number.
        table: the split as read from the corpus, in the same order.
    """

    compared: Comparison
    offsets: IntArray
    table: pa.Table

    def text(self) -> str:
        """Return the text: a table by type, then up to `SHOWN` cases of each kind of error."""
        counts = np.bincount(self.compared.matches.kind, minlength=len(KINDS))
        gold, predicted = len(self.compared.gold[0]), len(self.compared.predicted[0])
        head = f"{gold:,} gold spans, {predicted:,} predicted, {counts[RIGHT]:,} right"
        parts = [head, "", *self._table()]
        for kind, name in enumerate(KINDS):
            if kind != RIGHT:
                parts += self._cases(kind, name)
        return "\n".join(parts) + "\n"

    def _table(self) -> list[str]:
        """Return the lines of a table by type: precision, recall and F1 (percent), and the counts of each kind."""
        types = self.compared.types
        per_type = self.compared.per_type()
        right = np.array([per_type[name]["right"] for name in types], dtype=np.int64)
        predicted, gold = (
            np.bincount(side[2], minlength=len(types)) for side in (self.compared.predicted, self.compared.gold)
        )
        width = max(map(len, types), default=0)
        lines = ["".join(f"{name:>11}" for name in ("precision", "recall", "F1", "predicted", "gold", *KINDS))]
        for number, (name, scores) in enumerate(by_name(types, right, predicted, gold).items()):
            shares = "".join(f"{scores[key]:11.2f}" for key in ("precision", "recall", "f1"))
            counts = (int(predicted[number]), int(gold[number]), *per_type[name].values())
            lines.append(name.ljust(width) + shares + "".join(f"{count:11,}" for count in counts))
        return [" " * width + lines[0], *lines[1:]]

    def _cases(self, kind: int, name: str) -> list[str]:
        cases = np.flatnonzero(self.compared.matches.kind == kind)
        shown = cases[:: -(-len(cases) // SHOWN) or 1]
        how_many = f", {len(shown)} of them shown" if len(shown) < len(cases) else ""
        return ["", f"== {name}: {len(cases):,}{how_many} ({MEANING[name]}) ==", *map(self._case, shown.tolist())]

    def _case(self, number: int) -> str:
        matches = self.compared.matches
        sides: list[tuple[str, int, int, str]] = []  # gold or predicted, start, end (exclusive), type
        for name, (starts, ends, types), span_of_match in (
            ("gold", self.compared.gold, matches.gold),
            ("predicted", self.compared.predicted, matches.predicted),
        ):
            if (span := int(span_of_match[number])) >= 0:
                sides.append((name, int(starts[span]), int(ends[span]), self.compared.types[types[span]]))
        start, end = min(side[1] for side in sides), max(side[2] for side in sides)
        row = int(np.searchsorted(self.offsets, start, side="right")) - 1
        row_start = int(self.offsets[row])
        # The table has the whole row, the offsets only the tokens that max_length kept.
        words = self.table["tokens"][row].as_py()[: int(self.offsets[row + 1]) - row_start]
        lines = [f"\n{place(self.table, row)}"]
        for name, first, stop, kind in sides:
            lines.append(f"  {name:9}  {kind}: {' '.join(words[first - row_start : stop - row_start])}")
        return "\n".join([*lines, f"  {'text':9}  {in_context(words, start - row_start, end - row_start)}"])


def in_context(words: Sequence[str], start: int, end: int) -> str:
    """Return `words[start:end]` in guillemets, with up to `AROUND` words of context on either side.

    Guillemets are used because brackets are common tokens themselves.
    """
    before, after = words[max(0, start - AROUND) : start], words[end : end + AROUND]
    cut_before, cut_after = ["..."] * (start > AROUND), ["..."] * (end + AROUND < len(words))
    return " ".join([*cut_before, *before, f"«{' '.join(words[start:end])}»", *after, *cut_after])
