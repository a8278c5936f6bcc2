"""Statistics of plans against hand-computed values, simple loops and random shuffles."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.batching.bucketed import Bucketed
from runner.batching.plan import cut
from runner.batching.same_length import SameLength
from runner.batching.shuffle_quality import (
    between_share,
    chance_between_share,
    chance_repeated_pairs,
    class_shares,
    correlation,
    measure,
    membership,
    repeated_pairs,
    spread,
)
from runner.batching.shuffled import Shuffled

GROUPED = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 9), min_size=n, max_size=n).map(np.array),
        st.lists(st.integers(0, 4), min_size=n, max_size=n).map(np.array),
        st.lists(st.integers(0, 4), min_size=n, max_size=n).map(np.array),
    )
)
MANY = settings(max_examples=150, deadline=None)


def arrays(*lists):
    return [np.array(item, dtype=np.int64) for item in lists]


# --- reference implementations


def slow_between(rows, groups):
    """Compute both sums of squares row by row."""
    rows = [list(map(float, np.atleast_1d(row))) for row in rows]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    total = sum((x - m) ** 2 for row in rows for x, m in zip(row, mean, strict=True))
    between = 0.0
    for group in set(groups):
        inside = [row for row, its in zip(rows, groups, strict=True) if its == group]
        for place, m in enumerate(mean):
            between += len(inside) * (sum(row[place] for row in inside) / len(inside) - m) ** 2
    return between / total if total else None


def slow_repeated(before, after):
    """Count every pair."""
    pairs = [(i, j) for i, j in itertools.combinations(range(len(before)), 2) if before[i] == before[j]]
    return sum(after[i] == after[j] for i, j in pairs) / len(pairs) if pairs else None


def slow_correlation(lengths, answers, groups):
    """Compute covariances inside groups, one class after another."""

    def centred(values):
        return [
            value - np.mean([other for other, its in zip(values, groups, strict=True) if its == group])
            for value, group in zip(values, groups, strict=True)
        ]

    x = centred(lengths)
    ys = [centred(column) for column in answers.T]
    variance = sum(a * a for a in x) * sum(b * b for y in ys for b in y)
    if variance < 1e-12:
        return None
    return math.sqrt(sum(sum(a * b for a, b in zip(x, y, strict=True)) ** 2 for y in ys) / variance)


def close(result, expected):
    return (result is None and expected is None) or result == pytest.approx(expected, abs=1e-9)


@MANY
@given(GROUPED)
def test_figures_equal_slow_loops(drawn):
    lengths, groups, others = drawn
    answers = np.eye(5)[others]
    assert close(between_share(lengths, groups), slow_between(lengths, groups.tolist()))
    assert close(between_share(answers, groups), slow_between(answers, groups.tolist()))
    assert close(repeated_pairs(groups, others), slow_repeated(groups, others))
    assert close(correlation(lengths, answers, groups), slow_correlation(lengths, answers, groups))
    assert close(correlation(lengths, answers, None), slow_correlation(lengths, answers, np.zeros(len(lengths))))


@MANY
@given(GROUPED)
def test_shares_are_shares(drawn):
    lengths, groups, others = drawn
    for share in (
        between_share(lengths, groups),
        repeated_pairs(groups, others),
        chance_repeated_pairs(groups),
        chance_between_share(groups),
        correlation(lengths, np.eye(5)[others], groups),
    ):
        assert share is None or 0 <= share <= 1 + 1e-12


def test_chance_is_the_mean_over_all_ways_to_shuffle():
    lengths, groups, before = arrays([1, 2, 2, 7, 3, 9], [0, 0, 1, 1, 1, 2], [0, 0, 0, 1, 2, 2])
    ways = [np.array(way) for way in itertools.permutations(range(6))]
    between = np.mean([between_share(lengths[way], groups) for way in ways])
    repeated = np.mean([repeated_pairs(before, groups[way]) for way in ways])
    assert between == pytest.approx(chance_between_share(groups)) == pytest.approx(2 / 5)
    assert repeated == pytest.approx(chance_repeated_pairs(groups)) == pytest.approx((2 + 6) / 30)


# --- hand-computed values


def test_updates_of_equal_lengths_hold_all_of_the_variance_between_them():
    lengths, sorted_, mixed = arrays([1, 1, 5, 5], [0, 0, 1, 1], [0, 1, 0, 1])
    assert between_share(lengths, sorted_) == 1
    assert between_share(lengths, mixed) == 0
    assert between_share(np.array([1, 3, 5, 7]), sorted_) == pytest.approx(16 / 20)


def test_what_has_no_meaning_is_none():
    same, groups, alone = arrays([3, 3, 3], [0, 0, 1], [0, 1, 2])
    assert between_share(same, groups) is None
    assert between_share(np.full((3, 3), 1 / 3) * 1.1, groups) is None, "rounding is no variance"
    assert repeated_pairs(alone, groups) is None
    assert correlation(same, np.eye(3), None) is None
    assert correlation(np.array([1, 2, 3]), np.eye(3), alone) is None
    assert chance_between_share(np.array([0])) is None
    assert chance_repeated_pairs(np.array([0])) is None


def test_pairs_that_stand_together_again():
    before, same, none, half = arrays([0, 0, 1, 1], [5, 5, 2, 2], [0, 1, 0, 1], [0, 0, 1, 2])
    assert repeated_pairs(before, same) == 1
    assert repeated_pairs(before, none) == 0
    assert repeated_pairs(before, half) == 0.5


def test_of_two_labels_it_is_the_ordinary_correlation():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 200)
    lengths = rng.integers(1, 20, 200) + 4 * labels
    expected = abs(np.corrcoef(lengths, labels)[0, 1])
    assert expected > 0.2
    assert correlation(lengths, np.eye(2)[labels], None) == pytest.approx(expected)


def test_inside_updates_the_difference_of_updates_does_not_count():
    """Length predicts the label over all rows but not inside an update (Simpson 1951)."""
    lengths, labels, updates = arrays([1, 2, 1, 2, 8, 9, 8, 9], [0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1, 1])
    answers = np.eye(2)[labels]
    assert correlation(lengths, answers, None) > 0.4
    assert correlation(lengths, answers, updates) == pytest.approx(0)


def test_class_shares_of_tokens_and_of_rows():
    tokens = class_shares(np.array([0, 0, 2, 1]), np.array([3, 0, 1]), 3)
    np.testing.assert_allclose(tokens, [[2 / 3, 0, 1 / 3], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(class_shares(np.array([1, 0]), np.array([1, 1]), 2), [[0, 1], [1, 0]])


def test_spread():
    actual = spread(np.array([2, 4, 4, 6]))
    assert (actual.mean, actual.smallest, actual.largest) == (4, 2, 6)
    assert actual.variation == pytest.approx(math.sqrt(2) / 4)
    assert spread(np.array([0, 0])).variation == 0


def test_membership_wants_each_row_once():
    assert membership(arrays([2, 0], [1]), 3).tolist() == [0, 1, 0]
    for updates in (arrays([0, 0], [1]), arrays([0], [1]), arrays([0, 1, 2, 3])):
        with pytest.raises(ValueError, match="each row exactly once"):
            membership(updates, 3)


# --- whole plans


def labelled_rows(n=4000):
    """Return lengths that partly predict the label."""
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 3, n)
    return rng.integers(1, 41, n) + 6 * labels, np.eye(3)[labels]


def figures(plan, epochs=4):
    lengths, answers = labelled_rows()
    updates = [plan(lengths, np.random.default_rng([1, epoch])) for epoch in range(epochs)]
    return measure(updates, lengths, answers, plan.batch_size)


def test_a_shuffled_plan_is_as_chance_gives():
    actual = figures(Shuffled(batch_size=32))
    assert (actual.updates, actual.rows_per_update, actual.fill_rate) == (125, 32, 1)
    for share in (actual.alike_in_length, actual.alike_in_targets, actual.repeated_pairs):
        assert share.times_chance == pytest.approx(1, abs=0.12)
    lengths, answers = labelled_rows()
    assert actual.length_target_correlation == pytest.approx(correlation(lengths, answers, None), abs=0.02)
    assert actual.tokens.mean * 125 == pytest.approx(lengths.sum())


def test_sorting_shows():
    shuffled, bucketed, same = (
        figures(plan)
        for plan in (Shuffled(batch_size=32), Bucketed(batch_size=32, buckets=8), SameLength(batch_size=32))
    )
    assert shuffled.alike_in_length.value < 0.1 < 0.9 < bucketed.alike_in_length.value
    assert same.alike_in_length.value == pytest.approx(1)
    assert shuffled.repeated_pairs.value < bucketed.repeated_pairs.value < same.repeated_pairs.value
    assert shuffled.alike_in_targets.times_chance < 1.2 < 3 < bucketed.alike_in_targets.times_chance
    assert shuffled.tokens.variation < bucketed.tokens.variation
    assert bucketed.length_target_correlation < shuffled.length_target_correlation / 2
    assert same.length_target_correlation is None


def test_one_epoch_repeats_nothing_and_a_plan_without_answers_mixes_none():
    lengths, _ = labelled_rows(50)
    actual = measure([Shuffled(batch_size=8)(lengths, np.random.default_rng(0))], lengths, None, None)
    assert (actual.repeated_pairs.value, actual.repeated_pairs.chance, actual.repeated_pairs.times_chance) == (
        None,
    ) * 3
    assert actual.alike_in_targets.value is None
    assert actual.length_target_correlation is None
    assert actual.fill_rate is None
    assert actual.alike_in_length.chance == pytest.approx(6 / 49)


def test_a_plan_that_never_changes_repeats_all():
    lengths, answers = labelled_rows(64)
    actual = measure([cut(np.arange(64), 8)] * 3, lengths, answers, 8)
    assert actual.repeated_pairs.value == 1
    assert actual.repeated_pairs.chance == pytest.approx(7 / 63)
