"""Staircases against simple references, and recurrent layers that use them against torch in float32."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from runner.interfaces import START
from runner.layers.moves import move_places
from runner.layers.recurrent.recurrence import Recurrence
from runner.layers.staircase import Staircase, find_cuts
from runner.profiling.kernels import KernelWatch
from runner.ragged.ragged import Ragged
from tests.helpers.contract import check_contract, rows_of
from tests.helpers.machine import lstm_is_fused

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any)
CALLS = [0.0, 3.0, 20.0, 1e9, None]  # from no padding to one rectangle
CELLS = ("lstm", "gru", "rnn")


def cost_of(begins: tuple[int, ...], ends: list[int], running: list[int], call: float) -> float:
    stops = [*begins[1:], len(ends) - 1]
    return sum(call + running[i] * (ends[j] - ends[i]) for i, j in zip(begins, stops, strict=True))


@given(LENGTHS, st.sampled_from([0.0, 0.5, 3.0, 7.0, 30.0]))
def test_cuts_are_the_cheapest_of_all(lengths: list[int], call: float) -> None:
    ends = [0, *sorted({length for length in lengths if length})]
    running = [sum(length > end for length in lengths) for end in ends]
    inner = range(1, len(ends) - 1)
    every = [(0, *some) for n in range(len(inner) + 1) for some in combinations(inner, n)]
    least = min(cost_of(item, ends, running, call) for item in every)
    assert cost_of(tuple(find_cuts(ends, running, call)), ends, running, call) == pytest.approx(least)


@given(LENGTHS, st.sampled_from(CALLS))
def test_every_token_has_its_place(lengths: list[int], call: float | None) -> None:
    stairs = Staircase(rows_of(lengths), call)
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row])
    assert stairs.row_order.tolist() == order
    expected, behind, begin = {}, 0, 0
    for steps, n_rows in stairs.blocks:
        for place in range(steps * n_rows):
            step, rank = divmod(place, n_rows)
            expected[order[rank], begin + step] = behind + place
        behind, begin = behind + steps * n_rows, begin + steps
    tokens = [(row, step) for row, length in enumerate(lengths) for step in range(length)]
    assert stairs.places.tolist() == [expected[token] for token in tokens]
    assert stairs.reversed_places.tolist() == [expected[row, lengths[row] - 1 - step] for row, step in tokens]
    assert stairs.last_places.tolist() == [expected[row, lengths[row] - 1] for row in order]
    assert len(stairs.running) == max(lengths)
    assert sum(stairs.sizes) == behind >= len(tokens)
    if call in (0.0, None):
        assert behind == len(tokens)
        assert stairs.running == [sum(length > step for length in lengths) for step in range(max(lengths))]


def test_layers_share_cached_index_maps() -> None:
    rows = rows_of((3, 1, 2))
    assert Staircase.of(rows, 5.0) is Staircase.of(rows.with_seeds(torch.arange(3)), 5.0)
    assert Staircase.of(rows, 5.0) is not Staircase.of(rows, 0.0)


def test_moving_and_its_gradient() -> None:
    values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    source, target = torch.tensor([2, 0, 3]), torch.tensor([4, 1, 0])
    expected = torch.zeros(6, 2, dtype=torch.float64)
    expected[target] = values.detach()[source]
    assert torch.equal(move_places(values, source, target, 6), expected)
    for item in ((source, target, 6), (source, None, 3), (None, torch.tensor([4, 1, 0, 5]), 6)):
        assert torch.autograd.gradcheck(lambda x, item=item: move_places(x, *item), values)


@pytest.mark.parametrize("call", CALLS[:-1])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_in_few_and_many_rectangles_keeps_the_contract(
    cell: Any, reverse: bool, call: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recurrence, "_call_cost", call)
    monkeypatch.setattr(Recurrence, "_runs_unrolled", lambda self, x: False)
    layer = Recurrence(cell, 6, 5, reverse).double()
    check_contract(lambda x: layer(x, None), 6, list(layer.parameters()))


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("state", [None, START])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_kernels_over_rectangles_and_unrolled_cells_equal_torchs_packed_sequence(
    cell: Any, state: Any, layout: str
) -> None:
    """Compare outputs, all gradients and final states in float32, for sizes at which several rectangles pay off."""
    torch.manual_seed(1)
    lengths = np.random.default_rng(1).integers(0, 40, 60).clip(0, 33)
    rows, layer = rows_of(lengths.tolist()), Recurrence(cell, 20, 100, reverse=False)
    tokens = torch.randn(int(lengths.sum()), 20, requires_grad=True)
    x = Ragged(tokens, rows, "packed")
    with KernelWatch() as watch:
        output, end = layer(x if layout == "packed" else x.pad(float("nan")), state)
    real = torch.from_numpy(np.flatnonzero(lengths))  # torch accepts no empty rows
    sequence = x.pad().values.index_select(0, real)
    packed = pack_padded_sequence(sequence, torch.from_numpy(lengths)[real], batch_first=True, enforce_sorted=False)
    expected, last = layer.cell(packed)
    expected = Ragged(pad_packed_sequence(expected, batch_first=True)[0], rows_of(lengths[real].tolist()), "padded")
    weigh = torch.linspace(-1, 2, output.tokens().numel()).view_as(output.tokens())
    asked = [tokens, *layer.parameters()]
    actual = [torch.autograd.grad((item.tokens() * weigh).sum(), asked) for item in (output, expected)]
    for mine, theirs in zip((output.tokens(), *actual[0]), (expected.tokens(), *actual[1]), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    if end is not None:
        for ours, torchs in zip(end, last if cell == "lstm" else (last,), strict=True):
            torch.testing.assert_close(ours.index_select(0, real), torchs[0])
            assert not ours[lengths == 0].any()
    if cell == "lstm" and lstm_is_fused():
        n_blocks = len(Staircase.of(rows, None if state is not None else layer._call_cost).blocks)
        assert n_blocks > 1
        assert watch.describe(layout) == f"oneDNN RNN in {n_blocks} blocks, {layout}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_torchs_packed_sequences_that_run_on_a_gpu_keep_the_contract_too(
    cell: Any, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, tokens = Recurrence(cell, 6, 5, reverse).double(), torch.randn(13, 6, dtype=torch.float64)
    x = Ragged(tokens, rows_of((5, 0, 1, 7)), "packed")
    stairs = [layer(item, START) for item in (x, x.pad())]
    monkeypatch.setattr(Recurrence, "_runs_rectangles", lambda self, x, state: False)
    monkeypatch.setattr(Recurrence, "_runs_unrolled", lambda self, x: False)
    check_contract(lambda x: layer(x, None), 6, list(layer.parameters()))
    for (output, end), one in zip(stairs, (x, x.pad()), strict=True):
        other, last = layer(one, START)
        torch.testing.assert_close(output.tokens(), other.tokens())
        torch.testing.assert_close(end, last)
