"""The past that rows keep and the keys that a token sees, against lists."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from runner.layers.attention_window import AttentionWindow, latest_indices, length_mask
from runner.ragged import shapes
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, rows_of


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@pytest.mark.parametrize("places", [0, 2, 4])
def test_latest_indices_point_to_the_past_then_to_the_row(count: int, places: int) -> None:
    lengths = [3, 0, 7, 1]
    rows = rows_of(lengths)
    past = np.arange(4) * places
    own = 4 * places + rows.host_offsets[:-1]
    got = latest_indices(rows, count, past, places, own).view(4, count).tolist()
    for row, length in enumerate(lengths):
        history = [*range(past[row], past[row] + places), *range(own[row], own[row] + length)]
        expected = history[max(0, len(history) - count) :]
        assert got[row][count - len(expected) :] == expected


def visible_by_definition(window: AttentionWindow, lengths: list[int], seen: list[int]) -> set[tuple[int, int, int]]:
    """Return every (row, query, key) where a real token sees another, one by one."""
    result = set()
    for row, (length, before) in enumerate(zip(lengths, seen, strict=True)):
        for t, key in product(range(length), range(window.keys)):
            query = window.places + t
            there = window.places - min(before, window.places) <= key <= query
            if there and (window.memory is None or query - key <= window.memory):
                result.add((row, t, key))
    return result


@pytest.mark.parametrize("lengths", [[3, 0, 5], [1, 1, 1], [4, 4, 4]])
@pytest.mark.parametrize("seen", [None, [0, 0, 0], [4, 4, 4], [9, 4, 5], [0, 2, 4]])
@pytest.mark.parametrize("memory", [None, 1, 4, 6, 100])
def test_a_token_sees_itself_and_memory_tokens_before_it(
    lengths: list[int], seen: list[int] | None, memory: int | None
) -> None:
    places = 0 if seen is None else min(max(seen), 4, memory or 4)
    window = AttentionWindow(rows_of(lengths), True, memory, None if seen is None else np.array(seen), places)
    mask = window.mask
    shape = (3, 1, window.rows.width, window.keys)
    shown = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    real = [(row, t, key) for row, _, t, key in shown.nonzero().tolist() if t < lengths[row]]
    assert set(real) == visible_by_definition(window, lengths, seen or [0, 0, 0])
    assert shown.any(dim=-1).all()  # padding too: a softmax over no keys is NaN
    if window.is_triangle:
        triangle = torch.ones(window.rows.width, window.keys, dtype=torch.bool).tril()
        assert torch.equal(shown, triangle.expand(shape))
    assert window.next_places == min(
        max(b + n for b, n in zip(window.past_lengths, lengths, strict=True)), memory or 100
    )


def test_a_step_over_rows_of_one_length_needs_no_mask() -> None:
    rows = rows_of([1, 1])
    assert AttentionWindow(rows, True, 4, np.array([7, 9]), 4).mask is None
    assert AttentionWindow(rows, True, None, np.array([4, 4]), 4).mask is None
    assert AttentionWindow(rows, True, 3, np.array([4, 4]), 4).mask is not None
    assert AttentionWindow(rows, True, None, np.array([4, 3]), 4).mask is not None
    assert AttentionWindow(rows_of([3, 1]), True, 2, None, 0).is_triangle
    assert not AttentionWindow(rows_of([4, 1]), True, 2, None, 0).is_triangle


def test_non_causal_attention_sees_all_real_tokens_and_has_no_past() -> None:
    length = length_mask(rows_of([1, 0, 2]))
    assert length is not None
    assert length[:, 0].tolist() == [[[True, False]], [[True, True]], [[True, True]]]  # an empty row sees something
    assert length_mask(rows_of([2, 2])) is None
    assert AttentionWindow(rows_of([2, 2]), False, None, None, 0).mask is None
    with pytest.raises(ValueError, match="only causal attention has a state"):
        AttentionWindow(rows_of([2, 2]), False, None, np.zeros(2, dtype=np.int64), 0)


@pytest.mark.parametrize("lengths", [[3, 0, 5], [1, 1, 1], [4, 4, 4]])
@pytest.mark.parametrize("memory", [1, 2, 4, 100])
def test_non_causal_attention_with_a_memory_sees_as_far_ahead_as_back(lengths: list[int], memory: int) -> None:
    window = AttentionWindow(rows_of(lengths), False, memory, None, 0)
    shape = (3, 1, window.rows.width, window.keys)
    shown = torch.ones(shape, dtype=torch.bool) if window.mask is None else window.mask.expand(shape)
    real = {(row, t, key) for row, _, t, key in shown.nonzero().tolist() if t < lengths[row]}
    expected = {
        (row, t, key)
        for row, length in enumerate(lengths)
        for t, key in product(range(length), range(length))
        if abs(t - key) <= memory
    }
    assert real == expected
    assert shown.any(dim=-1).all()


def test_masks_never_wait_for_the_device() -> None:
    with NoWaiting():
        window = AttentionWindow(rows_of([3, 0, 5]), True, 3, np.array([1, 0, 3]), 3)
        assert window.mask is not None
        assert window.next_keys.shape == (3 * window.next_places,)


def test_blocks_hold_every_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "BLOCK_PAIRS", 0)
    with NoWaiting():
        window = AttentionWindow(rows_of([3, 0, 5, 3]), True, 2, None, 0)
        tokens = Ragged(torch.arange(1, 12), window.rows, "packed")
        parts = window.rectangles(tokens)
        assert [block.rows.host_lengths.tolist() for block, _ in parts] == [[0], [3, 3], [5]]
        expected = [[[0]], [[1, 2, 3], [9, 10, 11]], [[4, 5, 6, 7, 8]]]  # 0: the padding of an empty row
        assert [part.tolist() for _, part in parts] == expected
        joined = window.from_rectangles([part for _, part in parts], "packed")
    assert torch.equal(joined.values, tokens.values)
    assert all(block.memory == 2 and block.causal for block, _ in parts)


@pytest.mark.parametrize(("lengths", "n_seen"), [([4, 4], None), ([1, 90], np.array([0, 0]))])
def test_one_block_is_the_whole(lengths: list[int], n_seen: np.ndarray | None) -> None:
    window = AttentionWindow(rows_of(lengths), True, None, n_seen, 0)
    tokens = Ragged(torch.arange(sum(lengths)), window.rows, "packed")
    ((block, part),) = window.rectangles(tokens)
    assert block is window
    assert torch.equal(part, tokens.pad().values)
    assert torch.equal(window.from_rectangles([part], "packed").values, tokens.values)
