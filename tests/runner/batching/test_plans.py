"""Plans: every row once, reproducible from the seed, and optimal boundaries."""

import ast
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.batching import plan as plan_module
from runner.batching.bucketed import Bucketed, boundaries, chosen_buckets, fewest_buckets, row_minima, update_ends
from runner.batching.plan import batches_by_length, cut_groups, digest, fill_rate, shuffle_updates, stable_order
from runner.batching.same_length import SameLength
from runner.batching.shuffled import Shuffled
from runner.batching.token_budget import TokenBudget, starts_within
from runner.ragged.updates import Updates

PLANS = {
    "shuffled": Shuffled(batch_size=4),
    "same_length": SameLength(batch_size=4),
    "bucketed": Bucketed(batch_size=4, buckets=3),
    "token_budget": TokenBudget(max_tokens=24, batch_size=None, buckets=3),
    "token_budget_of_rows": TokenBudget(max_tokens=None, batch_size=3, buckets=3),
    "bucketed_by_itself": Bucketed(batch_size=4, buckets=None),
}
LENGTHS = st.lists(st.integers(0, 30), max_size=60).map(lambda lengths: np.array(lengths, dtype=np.int64))
MANY = np.random.default_rng(5).integers(0, 30, 400)
BY_NAME = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


@BY_NAME
@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_each_row_exactly_once_and_no_empty_update(plan, lengths, seed):
    updates = plan(lengths, np.random.default_rng(seed))
    assert sorted(row for update in updates for row in update.tolist()) == list(range(len(lengths)))
    assert all(len(update) > 0 for update in updates)
    assert isinstance(plan, TokenBudget) or all(len(update) <= plan.batch_size for update in updates)


@BY_NAME
def test_the_random_state_alone_decides(plan):
    def as_lists(seed):
        return [update.tolist() for update in plan(MANY, np.random.default_rng(seed))]

    assert as_lists([1, 0]) == as_lists([1, 0])
    assert as_lists([1, 0]) != as_lists([1, 1])
    assert as_lists([1, 0]) != as_lists([2, 0])


@BY_NAME
def test_plans_leave_the_lengths_alone(plan):
    lengths = MANY.copy()
    plan(lengths, np.random.default_rng(0))
    np.testing.assert_array_equal(lengths, MANY)


def test_shuffled_fills_all_updates_but_the_last():
    updates = Shuffled(batch_size=32)(MANY, np.random.default_rng(0))
    assert [len(update) for update in updates] == [32] * 12 + [16]


def test_same_length_holds_one_length_an_update_and_is_as_full_as_can_be():
    updates = SameLength(batch_size=4)(MANY, np.random.default_rng(0))
    assert all(len(set(MANY[update])) == 1 for update in updates)
    assert len(updates) == sum(-(-int(count) // 4) for count in np.bincount(MANY))
    lengths = [int(MANY[update[0]]) for update in updates]
    assert lengths != sorted(lengths), "updates of different lengths must be shuffled"


def test_bucketed_mixes_only_neighbours_and_shuffles_within_and_across():
    bounds = boundaries(np.bincount(MANY), 3)
    updates = Bucketed(batch_size=16, buckets=3)(MANY[:390], np.random.default_rng(0))
    buckets = [np.unique(np.searchsorted(bounds, MANY[update])).tolist() for update in updates]
    assert all(bucket in ([0], [1], [2], [0, 1], [1, 2]) for bucket in buckets)
    assert buckets != sorted(buckets)
    assert any(len(set(MANY[update])) > 1 and (np.diff(MANY[update]) < 0).any() for update in updates)
    updates = Bucketed(batch_size=16, buckets=3)(MANY, np.random.default_rng(0))
    other = Bucketed(batch_size=16, buckets=3)(MANY, np.random.default_rng(1))
    assert {frozenset(update.tolist()) for update in updates} != {frozenset(update.tolist()) for update in other}


def area(lengths, bounds):
    """Reference implementation: pad each row to the first boundary that holds it."""
    return sum(min(bound for bound in bounds if bound >= length) - length for length in lengths)


def least_area(lengths, buckets):
    """Reference implementation: try every choice of boundaries among the lengths."""
    distinct = sorted(set(lengths))
    choices = itertools.chain.from_iterable(itertools.combinations(distinct, k) for k in range(1, buckets + 1))
    return min(area(lengths, bounds) for bounds in choices if bounds[-1] == distinct[-1])


@settings(max_examples=150, deadline=None)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=40), buckets=st.integers(1, 5))
def test_boundaries_are_the_best_there_are(lengths, buckets):
    bounds = boundaries(np.bincount(lengths), buckets)
    assert 1 <= len(bounds) <= buckets
    assert (np.diff(bounds) > 0).all()
    assert area(lengths, bounds.tolist()) == least_area(lengths, buckets)


@pytest.mark.parametrize("n_distinct", [1, 2, 3, 7, 8, 9, 300])
def test_row_minima_equal_a_search_of_the_whole_matrix(n_distinct):
    rng = np.random.default_rng(n_distinct)
    distinct = np.cumsum(rng.integers(1, 5, n_distinct))
    counts = np.concatenate(([0], np.cumsum(rng.integers(1, 50, n_distinct))))
    areas = np.concatenate(([0], distinct * counts[1:]))
    for _ in range(4):
        matrix = areas[None, :] - distinct[:, None] * counts[None, :]
        actual = row_minima(areas, distinct, counts)
        np.testing.assert_array_equal(actual, matrix.argmin(1))
        areas = np.concatenate(([0], matrix.min(1) + distinct * counts[1:]))


def test_boundaries_of_few_lengths_and_of_none():
    assert boundaries(np.bincount(np.array([3, 3, 9])), 5).tolist() == [3, 9]
    assert boundaries(np.bincount(np.array([], dtype=np.int64)), 5).tolist() == []


def test_more_buckets_never_cost_area():
    costs = [area(MANY.tolist(), boundaries(np.bincount(MANY), buckets).tolist()) for buckets in range(1, 31)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0


def ended_slowly(rows, longest, batch_size, filled):
    """Reference implementation: add row after row, each as long as its bucket's longest."""
    ends, inside, place = [], [], 0
    widths = [width for n_rows, width in zip(rows, longest, strict=True) for _ in range(n_rows)]
    for place, width in enumerate(widths):
        if inside and width > inside[-1] and len(inside) * width - sum(inside) > filled * batch_size * width:
            ends.append(place)
            inside = []
        inside.append(width)
        if len(inside) == batch_size:
            ends.append(place + 1)
            inside = []
    return ends + [len(widths)] * bool(inside)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.integers(1, 30), max_size=8),
    steps=st.lists(st.integers(1, 40), min_size=8),
    batch=st.integers(1, 12),
    filled=st.sampled_from([0.0, 0.03, 0.2, 1.0]),
)
def test_a_bucket_fills_the_update_of_the_one_before_where_that_pads_little(rows, steps, batch, filled):
    longest = np.cumsum(steps)[: len(rows)]
    ends = update_ends(np.cumsum(rows, dtype=np.int64), longest, batch, filled)
    assert ends.tolist() == ended_slowly(rows, longest.tolist(), batch, filled)


@pytest.mark.parametrize(("longest", "small"), [(1, 0), (30, 0.05), (400, 0.2)])
@pytest.mark.parametrize("batch_size", [10, 32])
def test_few_buckets_pad_little_and_updates_are_full_where_they_can_be(longest, small, batch_size):
    lengths = (np.random.default_rng(1).pareto(2, 3000) * longest / 20 + 1).astype(np.int64).clip(max=longest)
    plan = Bucketed(batch_size=batch_size, buckets=None)
    for seed in range(3):
        updates = plan(lengths, np.random.default_rng(seed))
        places = sum(len(update) * lengths[update].max() for update in updates)
        assert 1 - lengths.sum() / places < 0.04
        assert len(updates) <= (1 + small) * np.ceil(3000 / batch_size)
    bounds, _ = chosen_buckets(lengths, batch_size, None)
    fewer, ends = chosen_buckets(lengths, batch_size, max(1, len(bounds) // 2))
    if len(fewer) < len(bounds) and len(ends) == np.ceil(3000 / batch_size):
        widths = fewer[np.searchsorted(np.cumsum(np.bincount(lengths))[fewer], ends)]
        assert 1 - lengths.sum() / (np.diff(ends, prepend=0) * widths).sum() > 0.04, "half of the buckets would do"


def test_where_nothing_pads_little_enough_the_least_is_chosen():
    lengths = np.array([1, 10, 100, 1000])
    bounds, ends = chosen_buckets(lengths, 4, None)
    assert (len(ends), bounds.tolist()[-1]) == (1, 1000), "at most half as many updates again"
    assert [bound.tolist() for bound in chosen_buckets(lengths[:0], 4, None)] == [[], []]
    assert fewest_buckets(lengths, 0.02).tolist() == lengths.tolist()
    assert fewest_buckets(lengths, 0.99).tolist() == [1000]
    assert fewest_buckets(lengths[:0], 0.02).tolist() == []


def test_a_budget_without_a_number_has_room_for_rows_of_mean_length():
    plan = TokenBudget(max_tokens=None, batch_size=4, buckets=2)
    assert plan.budget(np.array([1, 2, 4])) == 10  # 4 x 7 / 3, rounded up
    assert replace(plan, max_tokens=7).budget(np.array([1, 2, 4])) == 7
    with pytest.raises(ValueError, match="give one of them"):
        replace(plan, batch_size=None)


def grown_slowly(widths, max_tokens):
    """Reference implementation: add one row after another to the update while it fits."""
    sizes, inside = [], []
    for width in widths:
        longer = [*inside, width]
        if inside and len(longer) * max(longer) > max_tokens:
            sizes.append(len(inside))
            inside = [width]
        else:
            inside = longer
    return [*sizes, len(inside)] if inside else sizes


@settings(max_examples=150, deadline=None)
@given(widths=st.lists(st.integers(1, 40), max_size=50), max_tokens=st.integers(1, 60))
def test_budget_grows_updates_as_far_as_they_go(widths, max_tokens):
    starts = starts_within(max_tokens, np.array(widths, dtype=np.int64))
    assert np.diff([*starts, len(widths)]).tolist() == grown_slowly(widths, max_tokens)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, max_tokens=st.integers(1, 60))
def test_budget_is_kept_and_longer_rows_stand_alone(lengths, max_tokens):
    for update in TokenBudget(max_tokens=max_tokens, batch_size=None, buckets=3)(lengths, np.random.default_rng(0)):
        cells = len(update) * max(1, lengths[update].max())
        assert cells <= max_tokens or len(update) == 1


def test_by_length_is_stable():
    lengths = np.array([5, 1, 5, 0, 1])
    assert [update.tolist() for update in batches_by_length(lengths, 2)] == [[3, 1], [4, 0], [2]]
    assert not batches_by_length(lengths[:0], 2)


@pytest.mark.parametrize("longest", [10, 2**16 - 1, 2**16, 2**17])
def test_stable_order_whatever_the_keys(longest):
    keys = np.random.default_rng(0).integers(0, longest + 1, 200) // 7 * 7
    keys[3] = longest
    assert plan_module.stable_order(keys).tolist() == sorted(range(200), key=lambda place: int(keys[place]))


def test_fill_rate():
    assert fill_rate([np.arange(4), np.arange(2)], 4) == 0.75
    assert fill_rate([], 4) == 1.0


def test_digest_counts_the_rows_of_each_update_and_goes_on():
    first, second = [np.array([3, 1]), np.array([0, 2])], [np.array([2, 3]), np.array([0, 1])]
    assert digest(first) == digest([np.array([1, 3]), np.array([2, 0])]), "order within an update does not count"
    assert digest(first) != digest(first[::-1])
    assert digest(first) != digest([np.array([3, 1, 0, 2])])
    assert digest(first + second) == digest(second, before=digest(first))
    assert digest([]) == ""
    assert len(digest(first)) == 64


@pytest.mark.parametrize("name", ["plan", "shuffled", "bucketed", "same_length", "token_budget"])
def test_plans_do_not_import_torch(name):
    tree = ast.parse((Path(plan_module.__file__).parent / f"{name}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {module for module in imported if module.startswith("runner")}
    assert "numpy" in imported
    assert not any(module.startswith("torch") for module in imported)
    allowed = (
        "runner.batching.",
        "runner.ragged.updates",
        *(f"runner.common.{basic}" for basic in ("arrays", "types", "records")),
    )
    assert all(module.startswith(allowed) for module in ours)


@given(
    keys=st.lists(st.integers(0, 5) | st.sampled_from([2**16 - 1, 2**16, 2**40]), max_size=40),
    at_once=st.integers(1, 50),
)
def test_stable_order_is_a_stable_sort_also_in_blocks(keys, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.batching.plan._AT_ONCE", at_once)
        assert stable_order(np.array(keys, dtype=np.int64)).tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@given(sizes=st.lists(st.integers(1, 6), max_size=15), at_once=st.integers(1, 50), seed=st.integers(0, 9))
def test_updates_are_shuffled_whole_also_in_blocks(sizes, at_once, seed):
    listed = [list(range(end - size, end)) for size, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.batching.plan._AT_ONCE", at_once)
        shuffled = shuffle_updates(Updates.of([np.array(update) for update in listed]), np.random.default_rng(seed))
    order = np.random.default_rng(seed).permutation(len(listed))
    assert [update.tolist() for update in shuffled] == [listed[place] for place in order]


@given(groups=st.lists(st.integers(0, 3), max_size=40), batch_size=st.integers(1, 6))
def test_groups_are_cut_into_full_updates(groups, batch_size):
    expected = []
    for _, run in itertools.groupby(range(len(groups)), key=groups.__getitem__):
        rows = list(run)
        expected += [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    cut = cut_groups(np.arange(len(groups)), np.array(groups, dtype=np.int64), batch_size)
    assert [update.tolist() for update in cut] == expected


def test_plans_hold_four_bytes_a_row():
    for plan in PLANS.values():
        assert plan(MANY, np.random.default_rng(0)).rows.dtype == np.int32
