"""Seeded dropout: good random numbers that depend on row, position and feature only."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.layers.attention import SelfAttention
from runner.layers.attention_window import AttentionWindow
from runner.layers.dropout import Dropout, drop_values, number_dropout_layers, splitmix64
from runner.layers.pooling import pooling
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, check_contract, rows_of

MASK = 2**64 - 1


def mix_by_definition(state: int) -> int:
    """Return the next number of the paper's generator, in Python integers."""
    z = state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_the_numbers_are_splitmix64s() -> None:
    """Compare with the numbers published with the reference code (seed 1234567), and with plain integers for others."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    got = splitmix64(torch.tensor(1234567), torch.arange(4))
    assert [int(number) & MASK for number in got] == published
    for seed in (0, -1, 2**63 - 1, -(2**63)):
        expected = [mix_by_definition((seed + (place + 1) * 0x9E3779B97F4A7C15) & MASK) for place in range(50)]
        assert [int(number) & MASK for number in splitmix64(torch.tensor(seed), torch.arange(50))] == expected


def dropped(p: float, lengths: list[int], size: int, number: int = 0, first_seed: int = 0) -> Tensor:
    """Return 1.0 for each dropped value, (N, D)."""
    layer = Dropout(p)
    layer.number = number
    rows = rows_of(lengths).with_seeds(torch.arange(first_seed, first_seed + len(lengths)))
    values = torch.ones(sum(lengths), size, dtype=torch.float64)
    kept: Tensor = layer(values, rows, "packed")
    assert set(kept.unique().tolist()) <= {0.0, 1.0 / (1.0 - p)}
    return (kept == 0).double()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_dropped_share_is_p_for_each_row_position_and_feature(p: float) -> None:
    lost = dropped(p, [50] * 200, 30).view(200, 50, 30)
    for dimensions in ((0, 1, 2), (1, 2), (0, 2), (0, 1)):  # in all, by row, by position, by feature
        shares = lost.mean(dim=dimensions)
        item = lost.numel() / shares.numel()
        z = (shares - p) / (p * (1 - p) / item) ** 0.5
        assert z.abs().max() < 4.5
        if z.dim():
            assert 0.6 < z.var() < 1.5  # the variance of independent draws


def test_dropped_values_are_uncorrelated() -> None:
    """Check neighbours in each direction, and layers and seeds that differ by 1."""
    lost = dropped(0.5, [50] * 100, 40).view(100, 50, 40) - 0.5
    shifted = [(lost[1:], lost[:-1]), (lost[:, 1:], lost[:, :-1]), (lost[..., 1:], lost[..., :-1])]
    shifted += [(lost[..., 2:], lost[..., :-2]), (lost[1:, 1:], lost[:-1, :-1]), (lost[1:, :-1], lost[:-1, 1:])]
    shifted += [(lost, dropped(0.5, [50] * 100, 40, **other).view_as(lost) - 0.5) for other in OTHERS]
    for one, other in shifted:
        assert abs((one * other).mean() / 0.25) < 4.5 / one.numel() ** 0.5


OTHERS: list[dict[str, int]] = [{"number": 1}, {"number": 2}, {"first_seed": 1000}]


def test_equal_seeds_drop_the_same_values_but_layers_differ() -> None:
    rows = rows_of([7, 7]).with_seeds(torch.tensor([3, 3]))
    model = nn.ModuleList([Dropout(0.5), nn.Linear(2, 2), nn.ModuleList([Dropout(0.5)])])
    number_dropout_layers(model)
    values = torch.ones(14, 9)
    first, second = (module(values, rows, "packed") for module in model.modules() if isinstance(module, Dropout))
    assert torch.equal(first[:7], first[7:])
    assert not torch.equal(first, second)
    assert torch.equal(first, next(model.children())(values, rows, "packed"))  # and the same in the next pass


def test_dropout_keeps_the_contract() -> None:
    layer = Dropout(0.4)
    check_contract(layer.apply_to, 6)
    check_contract(lambda x: layer.apply_to(x.map(lambda v: v.unflatten(-1, (2, 3)))).map(lambda v: v.flatten(-2)), 6)
    check_contract(lambda x: layer(pooling("sum", 6)(x), x.rows.single, "packed"), 6)


def attended(layer: SelfAttention, x: Ragged, causal: bool) -> Ragged:
    output: Ragged = layer(x, AttentionWindow(x.rows, causal, None, None, 0), None)[0]
    return output


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", ["dot", "scaled_dot", "additive"])
def test_attention_weights_keep_the_contract_where_rows_bring_seeds(causal: bool, score: Any) -> None:
    layer = SelfAttention(6, 2, score, rotary=False, dropout=0.4).double()
    check_contract(lambda x: attended(layer, x, causal), 6, list(layer.parameters()))


def test_without_seeds_torchs_generator_draws() -> None:
    torch.manual_seed(0)
    expected = drop_values(torch.ones(9, 4), 0.3)
    again = drop_values(torch.ones(9, 4), 0.3)
    assert not torch.equal(expected, again)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.3)(torch.ones(9, 4), rows_of([5, 4]), "packed"), expected)


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.3, 0.5, 0.9, 0.9999999])
def test_torchs_generator_drops_with_the_probability_asked_for(p: float) -> None:
    """Check rates within five standard errors, for each of the four values of one 64-bit draw, and for pairs."""
    torch.manual_seed(3)
    values = drop_values(torch.ones(2**18, 4, dtype=torch.float64), p)
    drops = min(round(p * 2**16), 2**16 - 1) / 2**16
    lost = values == 0
    assert torch.equal(values[~lost].unique(), torch.tensor([1 / (1 - drops)], dtype=torch.float64))
    assert abs(drops - p) <= 2**-16
    for place in range(4):
        spread = 5 * (drops * (1 - drops) / 2**18) ** 0.5
        assert abs(float(lost[:, place].double().mean()) - drops) < spread
    both = float((lost[:, 0] & lost[:, 1]).double().mean())
    assert abs(both - drops**2) < 5 * (drops**2 * (1 - drops**2) / 2**18) ** 0.5 + 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 1, 7)])
def test_only_kept_values_have_a_gradient(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.full(shape, 3.0, dtype=dtype, requires_grad=True)
    dropped = drop_values(values, 0.5)
    dropped.sum().backward()
    assert dropped.dtype is dtype
    assert values.grad is not None
    assert torch.equal(values.grad * 3, dropped)
    assert set(dropped.flatten().tolist()) <= {0.0, 6.0}


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    rows = rows_of([5, 4]).with_seeds(torch.arange(2))
    values = torch.ones(9, 4)
    assert Dropout(0.5).eval()(values, rows, "packed") is values
    assert Dropout(0.0)(values, rows, "packed") is values


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_seeds_never_wait_for_the_device(layout: Any) -> None:
    rows = rows_of([5, 0, 4], widen=2).with_seeds(torch.arange(3))
    x = Ragged(torch.randn(9, 6, requires_grad=True), rows, "packed")
    scores: tuple[Any, ...] = ("dot", "additive")
    attentions = [partial(attended, SelfAttention(6, 2, score, False, 0.5), causal=False) for score in scores]
    for layer in (Dropout(0.5).apply_to, *attentions):
        with NoWaiting():
            layer(x if layout == "packed" else x.pad()).values.sum().backward()
