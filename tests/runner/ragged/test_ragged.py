"""Ragged rows against a reference with lists of lists."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_rows

CPU = torch.device("cpu")
Lists = list[list[float]]
LENGTHS = st.lists(st.integers(0, 6), max_size=7)


def numbered(lengths: list[int]) -> Lists:
    """Return rows of the given lengths with distinct values other than 0."""
    numbers = iter(range(1, sum(lengths) + 1))
    return [[float(next(numbers)) for _ in range(length)] for length in lengths]


def as_lists(x: Ragged) -> Lists:
    ends = np.cumsum(x.rows.host_lengths)
    return [x.tokens()[end - n : end].tolist() for end, n in zip(ends, x.rows.host_lengths, strict=True)]


@given(LENGTHS)
def test_pad_is_a_table_with_the_fill_behind_each_row(lengths: list[int]) -> None:
    lists = numbered(lengths)
    width = max([1, *lengths])
    x = Ragged.from_lists(lists)
    padded = x.pad(fill=-1.0)
    assert padded.values.tolist() == [row + [-1.0] * (width - len(row)) for row in lists]
    assert padded.mask().tolist() == [[place < n for place in range(width)] for n in lengths]
    assert as_lists(padded.pack()) == as_lists(x) == lists
    assert x.rows.max_len == max([0, *lengths])


@given(LENGTHS, st.data())
def test_select_takes_rows_in_the_order_asked_for(lengths: list[int], data: st.DataObject) -> None:
    lists = numbered(lengths)
    places = st.lists(st.integers(0, len(lengths) - 1), max_size=9) if lengths else st.just([])
    chosen = np.array(data.draw(places), dtype=np.int64)
    for x in (Ragged.from_lists(lists), Ragged.from_lists(lists).pad()):
        selected = x.select(chosen)
        assert selected.layout == "packed"
        assert as_lists(selected) == [lists[row] for row in chosen]


@given(LENGTHS)
def test_index_maps(lengths: list[int]) -> None:
    rows = Rows(np.array(lengths, dtype=np.int64), CPU)
    assert rows.row.tolist() == [row for row, n in enumerate(lengths) for _ in range(n)]
    assert rows.position.tolist() == [place for n in lengths for place in range(n)]
    assert rows.offsets.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]


@given(LENGTHS)
def test_reversal_turns_each_row_within_its_own_length(lengths: list[int]) -> None:
    lists = numbered(lengths)
    x = Ragged.from_lists(lists)
    turned = x.with_values(x.values[x.rows.packed_reversal])
    assert as_lists(turned) == [row[::-1] for row in lists]
    padded = x.pad()
    in_table = padded.with_values(padded.values.gather(1, padded.rows.padded_reversal))
    assert in_table.values.tolist() == turned.pad().values.tolist()


@given(LENGTHS)
def test_time_major_is_the_order_of_a_packed_sequence(lengths: list[int]) -> None:
    rows = Rows(np.array(lengths, dtype=np.int64), CPU)
    order = sorted((row for row, n in enumerate(lengths) if n), key=lambda row: -lengths[row])
    starts = rows.host_offsets
    steps = [[starts[row] + step for row in order if lengths[row] > step] for step in range(max([0, *lengths]))]
    actual = rows.time_major
    assert actual.tokens.tolist() == [token for step in steps for token in step]
    assert actual.batch_sizes.tolist() == [len(step) for step in steps]
    assert actual.row_order.tolist() == order
    assert actual.tokens[actual.inverse].tolist() == list(range(sum(lengths)))


def test_padding_does_not_leak() -> None:
    lists = [[1.0, 2.0], [], [3.0, 4.0, 5.0]]
    clean = Ragged.from_lists(lists).pad()
    poisoned = clean.with_values(clean.filled(float("nan")).requires_grad_())
    assert poisoned.values.isnan().any()
    assert poisoned.pad(fill=7.0).values.tolist() == Ragged.from_lists(lists).pad(fill=7.0).values.tolist()
    assert as_lists(poisoned) == lists
    poisoned.filled(0.0).square().sum().backward()
    gradient = poisoned.values.grad
    assert gradient is not None
    assert gradient.tolist() == (2 * clean.values).tolist()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_trailing_dimensions_and_maps(layout: Literal["packed", "padded"]) -> None:
    rows = Rows(np.array([2, 0, 1]), CPU, width=4)
    packed = Ragged(torch.arange(18.0).view(3, 2, 3), rows, "packed")
    x = packed if layout == "packed" else packed.pad()
    if layout == "padded":
        assert x.values.shape == (3, 4, 2, 3)
    doubled = x.map(lambda values: 2 * values)
    assert doubled.layout == layout
    assert torch.equal(doubled.tokens(), 2 * packed.values)


def test_shapes_that_do_not_fit_their_rows_are_refused() -> None:
    rows = Rows(np.array([2, 1]), CPU)
    with pytest.raises(ValueError, match=r"packed values have shape \(4,\); their rows need \(3,\)"):
        Ragged(torch.zeros(4), rows, "packed")
    with pytest.raises(ValueError, match="padded"):
        Ragged(torch.zeros(2, 3), rows, "padded")
    with pytest.raises(ValueError, match="length -1"):
        Rows(np.array([2, -1]), CPU)
    with pytest.raises(ValueError, match="width 1 is less"):
        Rows(np.array([2]), CPU, width=1)


def test_select_rows_keeps_the_width() -> None:
    rows, tokens = select_rows(Rows(np.array([1, 3, 2]), CPU), np.array([2, 0]), width=8)
    assert tokens.tolist() == [4, 5, 0]
    assert rows.width == 8
    assert rows.max_len == 2
