"""Errors of spans, to be read: where they stand, what was gold, what was predicted, and the words around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.common.arrays import IntArray
from tasks.metrics.metrics import by_name
from tasks.spans.errors import KINDS, RIGHT, Comparison
from tasks.targets import place

SHOWN = 50  # errors of each kind, spread over the text
AROUND = 12  # tokens before and after
MEANING = {
    "boundary": "the right type, other ends",
    "type": "the right ends, another type",
    "both": "other ends and another type, some token in common",
    "missed": "gold, and no prediction is left for it",
    "spurious": "predicted, and no gold span is left for it",
}


@dataclass(frozen=True)
class Listing:
    """What a listing is made of.

    Attributes:
        compared: gold spans and predicted ones.
        offsets: (B+1,) where rows begin.
        table: the split that the rows are from, in its order.
    """

    compared: Comparison
    offsets: IntArray
    table: pa.Table

    def text(self) -> str:
        """A table by type, then each kind of error with at most `SHOWN` cases."""
        counts = np.bincount(self.compared.matches.kind, minlength=len(KINDS))
        gold, predicted = len(self.compared.gold[0]), len(self.compared.predicted[0])
        head = f"{gold:,} gold spans, {predicted:,} predicted, {counts[RIGHT]:,} right"
        parts = [head, "", *self._table()]
        for kind, name in enumerate(KINDS):
            if kind != RIGHT:
                parts += self._cases(kind, name)
        return "\n".join(parts) + "\n"

    def _table(self) -> list[str]:
        """Of each type precision, recall and F1 (percent), spans, and what became of them."""
        types = self.compared.types
        per_type = self.compared.tables()["errors"]["per_type"]
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
        found = np.flatnonzero(self.compared.matches.kind == kind)
        shown = found[:: -(-len(found) // SHOWN) or 1]
        how_many = f", {len(shown)} of them here" if len(shown) < len(found) else ""
        return ["", f"== {name}: {len(found):,}{how_many} ({MEANING[name]}) ==", *map(self._case, shown.tolist())]

    def _case(self, number: int) -> str:
        matches = self.compared.matches
        found: list[tuple[str, int, int, str]] = []  # whose, first token, token after the last, type
        for name, (starts, ends, types), places in (
            ("gold", self.compared.gold, matches.gold),
            ("predicted", self.compared.predicted, matches.predicted),
        ):
            if (one := int(places[number])) >= 0:
                found.append((name, int(starts[one]), int(ends[one]), self.compared.types[types[one]]))
        start, end = min(one[1] for one in found), max(one[2] for one in found)
        row = int(np.searchsorted(self.offsets, start, side="right")) - 1
        begin = int(self.offsets[row])
        # without what max_length cut
        words = self.table["tokens"][row].as_py()[: int(self.offsets[row + 1]) - begin]
        lines = [f"\n{place(self.table, row)}"]
        for name, first, after, kind in found:
            lines.append(f"  {name:9}  {kind}: {' '.join(words[first - begin : after - begin])}")
        return "\n".join([*lines, f"  {'text':9}  {in_context(words, start - begin, end - begin)}"])


def in_context(words: Sequence[str], start: int, end: int) -> str:
    """`words[start:end]` in guillemets (brackets are common words), with at most `AROUND` words on either side."""
    before, after = words[max(0, start - AROUND) : start], words[end : end + AROUND]
    cut_before, cut_after = ["..."] * (start > AROUND), ["..."] * (end + AROUND < len(words))
    return " ".join([*cut_before, *before, f"«{' '.join(words[start:end])}»", *after, *cut_after])
