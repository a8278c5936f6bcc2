"""What went wrong with spans: every gold span and every predicted one is right, or in an error of one kind.

Shapes: G gold spans, P predicted spans, M matches, K span types.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from runner.common.arrays import IntArray
from tasks.spans.tags import SpanArrays

# boundary: the right type, but other ends; type: the right ends, but another type; both: neither, but some token is
# common; missed: gold, and nothing predicted is left for it; spurious: predicted, and nothing gold is left for it
KINDS = ("right", "boundary", "type", "both", "missed", "spurious")
RIGHT, BOUNDARY, TYPE, BOTH, MISSED, SPURIOUS = range(6)
NONE = "(none)"  # no span


@dataclass(frozen=True)
class Matches:
    """Each gold and each predicted span once, in the order of the text.

    Attributes:
        gold: (M,) places among the gold spans; -1: spurious.
        predicted: (M,) places among the predicted spans; -1: missed.
        kind: (M,) places in KINDS.
    """

    gold: IntArray
    predicted: IntArray
    kind: IntArray


def match(gold: SpanArrays, predicted: SpanArrays) -> Matches:
    """One to one: spans of equal ends first, then by overlap, those of equal type before others and long before short.

    So right + boundary + type + both + missed = G, and right + boundary + type + both + spurious = P.

    Args:
        gold: starts, ends (exclusive) and types of the gold spans, in order, no two of which overlap.
        predicted: the same of the predicted spans.
    """
    (gold_starts, gold_ends, gold_types), (starts, ends, types) = gold, predicted
    first = np.searchsorted(ends, gold_starts, side="right")
    count = np.searchsorted(starts, gold_ends, side="left") - first  # of predicted spans that overlap a gold one
    g = np.repeat(np.arange(len(gold_starts)), count)
    p = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    same_type = gold_types[g] == types[p]
    same_ends = (gold_starts[g] == starts[p]) & (gold_ends[g] == ends[p])
    kind = np.select([same_ends & same_type, same_type, same_ends], [RIGHT, BOUNDARY, TYPE], BOTH)
    overlap = np.minimum(gold_ends[g], ends[p]) - np.maximum(gold_starts[g], starts[p])
    chosen = _one_to_one(g, p, np.lexsort((p, g, -overlap, ~same_type, ~same_ends)))
    g, p, kind = g[chosen], p[chosen], kind[chosen]
    missed, spurious = (np.setdiff1d(np.arange(n), used) for n, used in ((len(gold_starts), g), (len(starts), p)))
    g, p = (
        np.concatenate([g, missed, np.full(len(spurious), -1)]),
        np.concatenate([p, np.full(len(missed), -1), spurious]),
    )
    kind = np.concatenate([kind, np.full(len(missed), MISSED), np.full(len(spurious), SPURIOUS)])
    begins = np.concatenate([gold_starts[g[g >= 0]], starts[spurious]])
    order = np.lexsort((kind, begins))
    return Matches(g[order], p[order], kind[order])


def _one_to_one(gold: IntArray, predicted: IntArray, order: IntArray) -> list[int]:
    """Pairs, taken in this order, of which neither span is taken yet."""
    chosen, taken_gold, taken_predicted = [], set(), set()
    for place in order.tolist():
        g, p = gold[place], predicted[place]
        if g not in taken_gold and p not in taken_predicted:
            taken_gold.add(g)
            taken_predicted.add(p)
            chosen.append(place)
    return chosen


@dataclass(frozen=True)
class Comparison:
    """Gold spans beside predicted ones; each side is starts, ends (exclusive) and types, in order, none overlapping.

    Attributes:
        gold: (G,) each.
        predicted: (P,) each.
        types: the names of the span types.
    """

    gold: SpanArrays
    predicted: SpanArrays
    types: tuple[str, ...]

    @cached_property
    def matches(self) -> Matches:
        return match(self.gold, self.predicted)

    def tables(self) -> dict[str, Any]:
        """`errors`: the `counts` of each kind, and of each kind `per_type` (of gold; of spurious spans, the predicted).

        `type_confusion`: gold types as rows, predicted ones as columns, `(none)` last: missed and spurious spans.
        """
        none = len(self.types)
        # a place of -1 reads what is appended
        gold_type = np.append(self.gold[2], none)[self.matches.gold]
        predicted_type = np.append(self.predicted[2], none)[self.matches.predicted]
        confusion = np.zeros((none + 1, none + 1), dtype=np.int64)
        np.add.at(confusion, (gold_type, predicted_type), 1)
        per_type = np.zeros((none, len(KINDS)), dtype=np.int64)
        np.add.at(per_type, (np.where(gold_type == none, predicted_type, gold_type), self.matches.kind), 1)
        return {
            "errors": {
                "counts": by_kind(per_type.sum(axis=0)),
                "per_type": {name: by_kind(counts) for name, counts in zip(self.types, per_type, strict=True)},
            },
            "type_confusion": {"labels": [*self.types, NONE], "counts": confusion.tolist()},
        }


def by_kind(counts: IntArray) -> dict[str, int]:
    return dict(zip(KINDS, counts.tolist(), strict=True))
