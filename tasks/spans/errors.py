"""Kinds of span errors: every gold span and every predicted span is correct, or part of an error of one kind.

Shapes: G gold spans, P predicted spans, M matches, K span types.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from runner.common.arrays import IntArray
from runner.tables.detail import pair_table
from tasks.spans.tags import SpanArrays

# right: same start, end and type. boundary: same type, other bounds. type: same bounds, other type. both: other bounds
# and type, but at least one common token. missed: a gold span without a matching prediction. spurious: a predicted span
# without a matching gold span.
KINDS = ("right", "boundary", "type", "both", "missed", "spurious")
RIGHT, BOUNDARY, TYPE, BOTH, MISSED, SPURIOUS = range(6)
NONE = "(none)"  # label of "no span" among confused types


@dataclass(frozen=True)
class Matches:
    """Pairs of gold and predicted spans, in the order of the text; each span is in exactly one pair."""

    gold: IntArray  # (M,) index of the gold span; -1: none (spurious)
    predicted: IntArray  # (M,) index of the predicted span; -1: none (missed)
    kind: IntArray  # (M,) index into KINDS


def match(gold: SpanArrays, predicted: SpanArrays) -> Matches:
    """Match gold and predicted spans one to one; the spans of a side are sorted and do not overlap.

    Pairs are chosen greedily among overlapping spans: equal bounds first, then equal types, then longer overlaps.
    So right + boundary + type + both + missed = G, and right + boundary + type + both + spurious = P.
    """
    (gold_starts, gold_ends, gold_types), (starts, ends, types) = gold, predicted
    # No two spans of a side overlap, so the predicted spans that overlap a gold one are contiguous: `count` of them,
    # from `first` on. g and p are the gold and the predicted span of each overlapping pair.
    first = np.searchsorted(ends, gold_starts, side="right")
    count = np.searchsorted(starts, gold_ends, side="left") - first
    g = np.repeat(np.arange(len(gold_starts)), count)
    p = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    same_type = gold_types[g] == types[p]
    same_ends = (gold_starts[g] == starts[p]) & (gold_ends[g] == ends[p])
    kind = np.select([same_ends & same_type, same_type, same_ends], [RIGHT, BOUNDARY, TYPE], BOTH)
    overlap = np.minimum(gold_ends[g], ends[p]) - np.maximum(gold_starts[g], starts[p])
    # `lexsort` sorts by its last key first: equal bounds, equal types, longest overlap, then the order of the text.
    chosen = _one_to_one(g, p, np.lexsort((p, g, -overlap, ~same_type, ~same_ends)))
    g, p, kind = g[chosen], p[chosen], kind[chosen]
    missed, spurious = np.setdiff1d(np.arange(len(gold_starts)), g), np.setdiff1d(np.arange(len(starts)), p)
    g = np.concatenate([g, missed, np.full(len(spurious), -1)])
    p = np.concatenate([p, np.full(len(missed), -1), spurious])
    kind = np.concatenate([kind, np.full(len(missed), MISSED), np.full(len(spurious), SPURIOUS)])
    order = np.lexsort((kind, np.concatenate([gold_starts[g[g >= 0]], starts[spurious]])))
    return Matches(g[order], p[order], kind[order])


def _one_to_one(gold: IntArray, predicted: IntArray, order: IntArray) -> list[int]:
    """Return the indices of the pairs that are chosen, going through them in `order`; each span is used once."""
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
    """Gold and predicted spans; each side is sorted starts, ends (exclusive) and types, without overlaps."""

    gold: SpanArrays  # (G,) each
    predicted: SpanArrays  # (P,) each
    types: tuple[str, ...]  # (K,) names of the span types

    @cached_property
    def matches(self) -> Matches:
        return match(self.gold, self.predicted)

    def tables(self) -> dict[str, object]:
        """Return the tables `errors` and `type_confusion`.

        `errors` holds the `counts` of each kind, and the same `per_type`, by the type of the gold span (of the
        predicted one if spurious). `type_confusion` has pairs of gold and predicted types, with `(none)` for spurious
        and missed spans.
        """
        counts = np.bincount(self.matches.kind, minlength=len(KINDS)).tolist()
        return {
            "errors": {"counts": dict(zip(KINDS, counts, strict=True)), "per_type": self.per_type()},
            "type_confusion": pair_table([*self.types, NONE], *self._types_of_matches()),
        }

    def per_type(self) -> pa.Table:
        """Return the counts by type: the column `name` of types, and a column for each kind."""
        gold, predicted = self._types_of_matches()
        counts = np.zeros((len(KINDS), len(self.types)), dtype=np.int64)
        np.add.at(counts, (self.matches.kind, np.where(gold == len(self.types), predicted, gold)), 1)
        return pa.table([pa.array(self.types, pa.string()), *map(pa.array, counts)], names=["name", *KINDS])

    def _types_of_matches(self) -> tuple[IntArray, IntArray]:
        """Return the gold and the predicted type of each match; K stands for a missing span."""
        # An index of -1 (no span) reads the appended last entry.
        gold, predicted = (np.append(side[2], len(self.types)) for side in (self.gold, self.predicted))
        return gold[self.matches.gold], predicted[self.matches.predicted]
