"""`Updates` against the list of arrays that it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.ragged.updates import Updates, row_numbers

SIZES = st.lists(st.integers(1, 5), max_size=12)


def both(sizes):
    rows = np.random.default_rng(0).permutation(sum(sizes))
    listed = np.split(rows, np.cumsum(sizes)[:-1]) if sizes else []
    return Updates(rows.astype(np.int32), np.cumsum(np.array(sizes, dtype=np.int64))), listed


def as_lists(updates):
    return [update.tolist() for update in updates]


@given(sizes=SIZES)
def test_it_is_the_sequence_of_its_updates(sizes):
    updates, listed = both(sizes)
    assert as_lists(updates) == as_lists(listed) == as_lists(Updates.of(listed))
    assert len(updates) == len(listed)
    assert bool(updates) == bool(listed)
    assert [updates[place].tolist() for place in range(-len(sizes), len(sizes))] == as_lists(listed) * 2
    assert updates.sizes.tolist() == sizes
    assert updates.starts.tolist() == [sum(sizes[:place]) for place in range(len(sizes))]
    assert Updates.of(updates) is updates


@given(
    sizes=SIZES,
    first=st.none() | st.integers(-14, 14),
    end=st.none() | st.integers(-14, 14),
    step=st.sampled_from([None, 1, 2, -1]),
)
def test_a_slice_is_that_of_the_list(sizes, first, end, step):
    updates, listed = both(sizes)
    assert as_lists(updates[first:end:step]) == as_lists(listed[first:end:step])


@given(sizes=SIZES, rows=st.integers(1, 9))
def test_parts_are_all_updates_in_order_and_few_rows_at_once(sizes, rows):
    updates, listed = both(sizes)
    parts = list(updates.parts(rows))
    assert [update for part in parts for update in as_lists(part)] == as_lists(listed)
    assert all(len(part) > 0 for part in parts)
    assert all(len(part.rows) < rows + max(sizes, default=0) for part in parts)


def test_updates_are_wide_integers_whatever_the_plan_holds():
    updates, _ = both([2, 3])
    assert {update.dtype for update in [updates[0], *updates]} == {np.dtype(np.int64)}
    with pytest.raises(IndexError):
        updates[2]


def test_row_numbers_are_as_narrow_as_they_can_be():
    assert row_numbers(3).dtype == np.int32
    assert row_numbers(3).tolist() == [0, 1, 2]
