"""The paired bootstrap against scipy's and against a loop that draws example by example."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from reporting.statistics import bootstrap
from reporting.statistics.bootstrap import ExampleSums

N = 40


def spans(rng: np.random.Generator, n: int = N) -> ExampleSums:
    """Return sums as of F1: twice the correct ones, and predicted plus gold."""
    gold = rng.integers(0, 4, n)
    predicted = rng.integers(0, 4, n)
    right = rng.integers(0, np.minimum(gold, predicted) + 1)
    return ExampleSums(2.0 * right, (gold + predicted).astype(float))


def f1(ratio: bootstrap.FloatArray) -> bootstrap.FloatArray:
    return 100 * ratio


def test_every_resample_is_one_that_a_loop_makes() -> None:
    """The sums of unit columns are the counts of n draws; other sums are of the drawn examples, one by one."""
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(N, 3))
    drawn = bootstrap.resampled(np.eye(N), 50)
    assert drawn.shape == (50, N)
    assert (drawn.sum(axis=1) == N).all()
    slow = []
    for counts in drawn:
        total = np.zeros(3)
        for example, count in enumerate(counts):
            for _ in range(int(count)):
                total += columns[example]
        slow.append(total)
    np.testing.assert_allclose(bootstrap.resampled(columns, 50), slow, rtol=1e-12, atol=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap.resampled(np.eye(N), 25)
    monkeypatch.setattr(bootstrap, "CHUNK", 7 * N)
    np.testing.assert_array_equal(bootstrap.resampled(np.eye(N), 25), whole)


def test_intervals_are_those_of_a_loop_over_resamples_strategies_and_seeds() -> None:
    rng = np.random.default_rng(2)
    pairs = [[(spans(rng), spans(rng)) for _ in range(seeds)] for seeds in (3, 1)]
    actual = bootstrap.mean_differences(pairs, f1, 0.9, 400)
    weights = bootstrap.resampled(np.eye(N), 400)
    for seeds, mean in zip(pairs, actual, strict=True):
        gaps = []
        for counts in [np.ones(N), *weights]:
            item = []
            for own, other in seeds:
                figures = [100 * sum(counts * s.numerator) / sum(counts * s.denominator) for s in (own, other)]
                item.append(figures[0] - figures[1])
            gaps.append(sum(item) / len(item))
        assert mean.n == len(seeds)
        assert mean.mean == pytest.approx(gaps[0])
        assert (mean.low, mean.high) == (
            pytest.approx(np.quantile(gaps[1:], 0.05)),
            pytest.approx(np.quantile(gaps[1:], 0.95)),
        )


def test_interval_is_scipys() -> None:
    """scipy draws others, so results agree up to chance: about 3 % of the width with 20,000 resamples."""
    rng = np.random.default_rng(3)
    own, other = spans(rng), spans(rng)

    def difference(a: object, b: object, c: object, d: object, axis: int = -1) -> object:
        def total(x: object) -> object:
            return np.sum(x, axis=axis)  # type: ignore[call-overload]

        return 100 * (total(a) / total(b) - total(c) / total(d))

    data = (own.numerator, own.denominator, other.numerator, other.denominator)
    theirs = scipy.stats.bootstrap(
        data, difference, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    (ours,) = bootstrap.mean_differences([[(own, other)]], f1, 0.95, 20_000)
    assert ours.low is not None
    assert ours.high is not None
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_pairing_is_used() -> None:
    """A run with two more correct examples differs by these alone, however hard the other examples are."""
    rng = np.random.default_rng(4)
    right, ones = rng.integers(0, 2, 400).astype(float), np.ones(400)
    better = right.copy()
    better[np.flatnonzero(right == 0)[:2]] = 1
    (mean,) = bootstrap.mean_differences([[(ExampleSums(better, ones), ExampleSums(right, ones))]], f1, 0.95, 2000)
    assert mean.mean == pytest.approx(0.5)
    assert mean.low is not None
    assert mean.high is not None
    assert 0 <= mean.low < 0.5 < mean.high < 1.5  # unpaired it would be +- 7


def test_no_span_drawn_is_zero_and_no_warning() -> None:
    few = ExampleSums(np.array([2.0, 0.0]), np.array([2.0, 0.0]))
    none = ExampleSums(np.zeros(2), np.array([1.0, 0.0]))
    (mean,) = bootstrap.mean_differences([[(few, none)]], f1, 0.95, 100)
    assert (mean.low, mean.mean, mean.high) == (0.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("level", "count"), [(0.5, 2000), (0.95, 2000), (0.99, 4000), (0.999, 40_000), (1 - 1e-9, 100_000)]
)
def test_enough_lie_beyond_a_bound(level: float, count: int) -> None:
    assert bootstrap.resamples_for(level) == count
