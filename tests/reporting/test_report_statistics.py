"""Statistics against scipy and against sums done by hand."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from reporting import statistics

finite = st.floats(-1e3, 1e3)


@given(st.lists(finite, min_size=2, max_size=9), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_is_scipys(values: list[float], confidence: float) -> None:
    got = statistics.mean_interval(values, confidence)
    assert got is not None
    assert got.low is not None
    assert got.high is not None
    error = scipy.stats.sem(values)
    assert got.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    if error > 1e-9:
        low, high = scipy.stats.t.interval(confidence, len(values) - 1, got.mean, error)
        assert (got.low, got.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    else:
        assert got.high - got.low == pytest.approx(0, abs=1e-6)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert statistics.mean_interval([40.0], 0.95) == statistics.Mean(1, 40.0, None, None)
    assert statistics.mean_interval([], 0.95) is None
    assert statistics.spread([]) is None


def test_pairs_are_by_seed() -> None:
    values, base = {1: 10.0, 3: 30.0, 4: 5.0}, {3: 20.0, 1: 4.0, 2: 99.0}
    assert statistics.differences(values, base) == [6.0, 10.0]
    assert statistics.ratios(values, base) == [2.5, 1.5]
    assert statistics.ratios({1: 1.0}, {1: 0.0}) == []


def test_spread() -> None:
    assert statistics.spread([3.0, 1.0, 10.0]) == statistics.Spread(3, 3.0, 1.0, 10.0)
    assert statistics.spread([3.0, 1.0]) == statistics.Spread(2, 2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 2.0, 9.0], (3, 3, 2.0, 1.0, 9.0)),
        ([1.0, None, 9.0], (3, 2, 9.0, 1.0, 9.0)),  # the one that never got there is the latest
        ([1.0, None], (2, 1, None, 1.0, 1.0)),
        ([None], (1, 0, None, None, None)),
    ],
)
def test_reached(seconds: list[float | None], expected: tuple[object, ...]) -> None:
    assert statistics.reached(seconds) == statistics.Reached(*expected)  # type: ignore[arg-type]
    assert not any(isinstance(value, float) and math.isinf(value) for value in expected)
