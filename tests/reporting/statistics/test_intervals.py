"""Statistics against scipy and against sums computed by hand."""

from __future__ import annotations

import math
from statistics import stdev

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from reporting.statistics import intervals

finite = st.floats(-1e3, 1e3)


@given(st.lists(finite, min_size=2, max_size=9), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_is_scipys(values: list[float], confidence: float) -> None:
    got = intervals.mean_interval(values, confidence)
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
    assert intervals.mean_interval([40.0], 0.95) == intervals.Mean(1, 40.0, None, None)
    assert intervals.mean_interval([], 0.95) is None
    assert intervals.spread([]) is None


def test_pairs_are_by_seed() -> None:
    values, base = {1: 10.0, 3: 30.0, 4: 5.0}, {3: 20.0, 1: 4.0, 2: 99.0}
    assert intervals.differences(values, base) == [6.0, 10.0]
    ratio = intervals.ratio_interval(values, base, 0.95)
    assert ratio is not None
    assert (ratio.n, ratio.mean) == (2, pytest.approx(math.sqrt(2.5 * 1.5)))
    low, high = scipy.stats.t.interval(0.95, 1, math.log(ratio.mean), scipy.stats.sem([math.log(2.5), math.log(1.5)]))
    assert (ratio.low, ratio.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert intervals.ratio_interval({1: 2.0}, {1: 0.0}, 0.95) is None
    assert intervals.ratio_interval({1: 2.0}, {1: 4.0}, 0.95) == intervals.Ratio(1, 0.5, None, None)


def test_noise_of_equal_runs_pairs_and_longer_series() -> None:
    """Pairs: the root mean square of their log ratios; three equal runs: s sqrt(2) of their logs."""
    pairs = intervals.noise([[100.0, 110.0], [200.0, 190.0], [7.0]], 0.9)
    assert pairs is not None
    logs = [math.log(1.1), math.log(0.95)]
    half = scipy.stats.t.ppf(0.95, 2) * math.sqrt(sum(value**2 for value in logs) / 2)
    assert (pairs.n, pairs.mean) == (2, pytest.approx(math.exp(sum(logs) / 2)))
    assert (pairs.low, pairs.high) == (pytest.approx(math.exp(-half)), pytest.approx(math.exp(half)))
    three = intervals.noise([[100.0, 110.0, 95.0]], 0.9)
    assert three is not None
    half = scipy.stats.t.ppf(0.95, 2) * math.sqrt(2) * stdev([math.log(100), math.log(110), math.log(95)])
    assert (three.n, three.high) == (2, pytest.approx(math.exp(half)))
    assert intervals.noise([[1.0], []], 0.9) is None


def test_spread() -> None:
    assert intervals.spread([3.0, 1.0, 10.0]) == intervals.Spread(3, 3.0, 1.0, 10.0)
    assert intervals.spread([3.0, 1.0]) == intervals.Spread(2, 2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 2.0, 9.0], (3, 3, 2.0, 1.0, 9.0)),
        ([1.0, None, 9.0], (3, 2, 9.0, 1.0, 9.0)),  # a run that never reached it counts as the latest
        ([1.0, None], (2, 1, None, 1.0, 1.0)),
        ([None], (1, 0, None, None, None)),
        ([], (0, 0, None, None, None)),
    ],
)
def test_reached(seconds: list[float | None], expected: tuple[object, ...]) -> None:
    assert intervals.reached(seconds) == intervals.TimeToTarget(*expected)  # type: ignore[arg-type]
    assert not any(isinstance(value, float) and math.isinf(value) for value in expected)
