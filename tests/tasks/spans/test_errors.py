"""Kinds of errors, compared with a direct implementation of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.spans.errors import KINDS, NONE, Comparison, match
from tests.helpers.metrics import by_name, matrix

TYPES = ("LOC", "PER")
Span = tuple[int, int, int]


def arrays(result: list[Span]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts, ends, types = (np.array([item[place] for item in result], dtype=np.int64) for place in range(3))
    return starts, ends, types


def kinds(gold: list[Span], predicted: list[Span]) -> list[tuple[str, Span | None, Span | None]]:
    result = match(arrays(gold), arrays(predicted))
    return [
        (KINDS[kind], gold[g] if g >= 0 else None, predicted[p] if p >= 0 else None)
        for g, p, kind in zip(result.gold.tolist(), result.predicted.tolist(), result.kind.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([(0, 2, 0)], [(0, 2, 0)], ["right"]),
        ([(0, 2, 0)], [(0, 2, 1)], ["type"]),
        ([(0, 2, 0)], [(0, 3, 0)], ["boundary"]),
        ([(0, 2, 0)], [(1, 3, 1)], ["both"]),
        ([(0, 2, 0)], [(2, 3, 0)], ["missed", "spurious"]),
        ([(0, 2, 0)], [], ["missed"]),
        ([], [(0, 2, 0)], ["spurious"]),
        ([], [], []),
        # one long prediction over two gold spans is right about neither, and can be near one only: the longer
        ([(0, 1, 0), (1, 4, 0)], [(0, 4, 0)], ["missed", "boundary"]),
        # equal types go before longer overlap
        ([(0, 1, 1), (1, 4, 0)], [(0, 4, 1)], ["boundary", "missed"]),
        ([(0, 4, 0)], [(0, 1, 0), (1, 4, 0)], ["boundary", "spurious"]),
    ],
)
def test_kinds_by_hand(gold: list[Span], predicted: list[Span], expected: list[str]) -> None:
    assert [kind for kind, _, _ in kinds(gold, predicted)] == expected


def spans_of(row: list[tuple[int, int]]) -> list[Span]:
    """Convert pieces (number of tokens, type or -1) to spans."""
    results, at = [], 0
    for length, kind in row:
        if kind >= 0:
            results.append((at, at + length, kind))
        at += length
    return results


rows = st.lists(st.tuples(st.integers(1, 4), st.integers(-1, 1)), max_size=12).map(spans_of)


@given(gold=rows, predicted=rows)
@settings(max_examples=300, deadline=None)
def test_each_span_is_counted_once_and_as_defined(gold: list[Span], predicted: list[Span]) -> None:
    actual = kinds(gold, predicted)
    assert sorted(g for _, g, _ in actual if g) == gold
    assert sorted(p for _, _, p in actual if p) == predicted
    assert {g for kind, g, p in actual if kind == "right"} == set(gold) & set(predicted)
    begins = [(g or p)[0] for _, g, p in actual if g or p]
    assert begins == sorted(begins)
    alone_gold = [g for kind, g, _ in actual if kind == "missed"]
    alone_predicted = [p for kind, _, p in actual if kind == "spurious"]
    for kind, g, p in actual:
        assert (kind == "missed") == (p is None)
        assert (kind == "spurious") == (g is None)
        if g is not None and p is not None:
            assert g[0] < p[1]
            assert p[0] < g[1]
            same = (g[:2] == p[:2], g[2] == p[2])
            assert kind == {(True, True): "right", (True, False): "type", (False, True): "boundary"}.get(same, "both")
    # nothing is left over that could have been matched
    assert not any(g[0] < p[1] and p[0] < g[1] for g in alone_gold if g for p in alone_predicted if p)


@given(gold=rows, predicted=rows)
@settings(max_examples=100, deadline=None)
def test_counts_add_up(gold: list[Span], predicted: list[Span]) -> None:
    tables = Comparison(arrays(gold), arrays(predicted), TYPES).tables()
    counts = tables["errors"]["counts"]
    matched = sum(counts[kind] for kind in ("right", "boundary", "type", "both"))
    assert (matched + counts["missed"], matched + counts["spurious"]) == (len(gold), len(predicted))
    for kind in KINDS:
        assert sum(tables["errors"]["per_type"][kind].to_pylist()) == counts[kind]
    confusion = np.array(matrix(tables["type_confusion"], [*TYPES, NONE]))
    for place in range(2):
        assert confusion[place].sum() == sum(item[2] == place for item in gold)
        assert confusion[:, place].sum() == sum(item[2] == place for item in predicted)
    assert confusion[-1].sum() == counts["spurious"]
    assert confusion[:, -1].sum() == counts["missed"]
    assert np.trace(confusion) == counts["right"] + counts["boundary"]


def test_per_type_by_hand() -> None:
    gold, predicted = [(0, 2, 0), (4, 5, 1)], [(0, 2, 1), (7, 8, 0)]
    tables = Comparison(arrays(gold), arrays(predicted), TYPES).tables()
    nothing = dict.fromkeys(KINDS, 0)
    assert by_name(tables["errors"]["per_type"]) == {
        "LOC": {**nothing, "type": 1, "spurious": 1},
        "PER": {**nothing, "missed": 1},
    }
    assert matrix(tables["type_confusion"], [*TYPES, NONE]) == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
