"""Every layer keeps the contract, equals a reference or torch's module, and never synchronises with the device."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from runner.interfaces import START
from runner.layers import convolution
from runner.layers.convolution import Convolution, convolve_parallel, round_up_size
from runner.layers.pooling import padded_extreme, pooling
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.profiling.kernels import KernelWatch
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, check_contract, rows_of

POOLS = ("mean", "max", "min", "sum", "sqrt", "unit_sum", "last", "first", "attention")
CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")
LENGTHS = (5, 1, 8, 3)


def ragged(lengths: Any = LENGTHS, size: int = 6, layout: Any = "packed", widen: int = 1) -> Ragged:
    torch.manual_seed(0)
    packed = Ragged(torch.randn(sum(lengths), size, dtype=torch.float64), rows_of(lengths, widen), "packed")
    return packed if layout == "packed" else packed.pad(float("nan"))


def weights(layer: Any) -> list[Tensor]:
    return list(layer.parameters()) if isinstance(layer, nn.Module) else []


@pytest.mark.parametrize("name", POOLS)
def test_pooling_keeps_the_contract(name: Any) -> None:
    pool = pooling(name, 6)
    if isinstance(pool, nn.Module):
        pool.double()
    check_contract(pool, 6, weights(pool))


def by_definition(name: str, pool: Any, row: Tensor) -> Tensor:
    """Pool one row by a simple loop: (length, D) -> (D,)."""
    if name == "attention":
        scores = torch.stack([pool.query(torch.tanh(pool.hidden(token))) for token in row]).detach()
        total = sum(math.exp(score) for score in scores)
        return sum((math.exp(score) / total * token for score, token in zip(scores, row, strict=True)), torch.zeros(6))
    if name in ("first", "last"):
        return row[0 if name == "first" else len(row) - 1]
    columns = {"mean": lambda c: sum(c) / len(c), "max": max, "min": min, "sum": sum, "unit_sum": sum}
    columns["sqrt"] = lambda c: sum(c) / math.sqrt(len(c))
    pooled = torch.stack([columns[name](list(column)) for column in row.T])
    return pooled / math.sqrt(sum(item**2 for item in pooled)) if name == "unit_sum" else pooled


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_pooling_is_what_its_name_says(name: Any, layout: Any) -> None:
    pool = pooling(name, 6)
    if isinstance(pool, nn.Module):
        pool.double()
    expected = [by_definition(name, pool, row) for row in ragged().values.split(list(LENGTHS))]
    torch.testing.assert_close(pool(ragged(layout=layout, widen=2)), torch.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_empty_rows_pool_to_zero(name: Any) -> None:
    pool = pooling(name, 6)
    if isinstance(pool, nn.Module):
        pool.double()
    for layout in ("packed", "padded"):
        pooled = pool(ragged((0, 3, 0), layout=layout))
        assert pooled[0].tolist() == pooled[2].tolist() == [0.0] * 6


def test_equal_largest_values_share_the_gradient_in_both_layouts() -> None:
    for layout in ("packed", "padded"):
        values = torch.tensor([[2.0], [2.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
        x = Ragged(values, rows_of((3, 1)), "packed")
        pooling("max", 1)(x if layout == "packed" else x.pad()).sum().backward()
        assert values.grad is not None
        assert values.grad.flatten().tolist() == [0.5, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("worst", [-torch.inf, torch.inf])
def test_on_a_gpu_the_largest_of_a_rectangle_is_the_same(worst: float) -> None:
    check_contract(lambda x: padded_extreme(x.pad() if x.layout == "packed" else x, worst), 6)
    x = ragged(layout="padded", widen=2)
    torch.testing.assert_close(padded_extreme(x, worst), pooling("max" if worst < 0 else "min", 6)(x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_convolution_keeps_the_contract_and_equals_each_row_by_itself(width: int, causal: bool) -> None:
    layer = Convolution(6, 4, width, causal).double()
    check_contract(lambda x: layer(x, None), 6, weights(layer))
    x = ragged()
    left = width - 1 if causal else (width - 1) // 2
    expected = []
    for row in x.values.split(list(LENGTHS)):
        edges = F.pad(row.T[None], (left, width - 1 - left))
        expected.append(F.conv1d(edges, layer.convolution.weight, layer.convolution.bias)[0].T)
    torch.testing.assert_close(layer(x, None).values, torch.cat(expected))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("widen", [1, 2])
def test_parallel_convolutions_equal_separate_ones_and_torchs(
    causal: bool, layout: str, widen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check several widths, with and without a past, by matrix products and by torch's convolutions."""
    layers = [Convolution(6, filters, width, causal).double() for filters, width in ((4, 3), (2, 1), (3, 6), (1, 4))]
    parameters = [weight for layer in layers for weight in weights(layer)]
    x, before = ragged(layout=layout, widen=widen), torch.randn(len(LENGTHS), 7, 6, dtype=torch.float64)
    values, before = x.values.requires_grad_(), before.requires_grad_()
    for past in (before, None) if causal else (None,):
        results = []
        weigh = torch.randn(sum(LENGTHS), 10, dtype=torch.float64)
        asked = [values, *parameters, *([] if past is None else [past])]
        for largest_product in (64, 0):
            monkeypatch.setattr(convolution, "MAX_PRODUCT_SIZE", largest_product)
            for crowded in (0.0, 1.0):
                monkeypatch.setattr(convolution, "DENSE_SHARE", crowded)
                check_contract(lambda x: convolve_parallel(layers, x, None), 6, parameters)
                together = convolve_parallel(layers, x, past).tokens()
                results.append((together, *torch.autograd.grad((together * weigh).sum(), asked)))
        apart = torch.cat([layer(x, past).tokens() for layer in layers], dim=1)
        results.append((apart, *torch.autograd.grad((apart * weigh).sum(), asked)))
        for mine, *others in zip(*results, strict=True):
            for theirs in others:
                torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("causal", [False, True])
def test_zeros_after_the_packed_line_change_no_output(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check rows long enough for zeros after the line, with and without a past."""
    lengths = (40, 0, 31, 1, 50)
    layer, x = Convolution(6, 4, 4, causal).double(), ragged(lengths)
    values, before = x.values.requires_grad_(), torch.randn(5, 3, 6, dtype=torch.float64)
    for past in (before, None) if causal else (None,):
        results = []
        for largest_product in (64, 0):
            monkeypatch.setattr(convolution, "MAX_PRODUCT_SIZE", largest_product)
            answer = layer(x, past).values
            weigh = torch.linspace(1, 2, answer.numel(), dtype=torch.float64).view(answer.shape)
            results.append((answer, *torch.autograd.grad((answer * weigh).sum(), [values, *layer.parameters()])))
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_lengths_of_lines_recur() -> None:
    for size in (1, 31, 32, 33, 1000, 1024, 1025, 65_537):
        assert size <= round_up_size(size) <= size * 17 / 16
    for power in range(3, 13):
        assert len({round_up_size(size) for size in range(2**power, 2 ** (power + 1))}) <= 17


def test_convolutions_run_in_mixed_precision() -> None:
    layer, x = Convolution(6, 4, 3, causal=False), ragged().map(Tensor.float)
    values = x.values.requires_grad_()
    exact = layer(x, None).values
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x, None).values
    assert mixed.dtype is torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, rtol=0.05, atol=0.05)
    asked = [values, *layer.parameters()]
    grads = [torch.autograd.grad(item.float().sum(), asked) for item in (mixed, exact)]
    for mine, theirs in zip(*grads, strict=True):
        assert mine.dtype is torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_recurrence_keeps_the_contract(cell: Any, reverse: bool) -> None:
    layer = Recurrence(cell, 6, 5, reverse).double()
    check_contract(lambda x: layer(x, None), 6, weights(layer))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_two_directions_equal_torchs_packed_bidirectional_module(cell: str, layout: str) -> None:
    peer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](6, 5, batch_first=True, bidirectional=True).double()
    ours = [Recurrence(cell, 6, 5, reverse).double() for reverse in (False, True)]  # type: ignore[arg-type]
    for layer, suffix in zip(ours, ("", "_reverse"), strict=True):
        for name, parameter in layer.cell.named_parameters():
            parameter.data.copy_(getattr(peer, name + suffix).data)
    x = ragged(layout=layout, widen=2)
    packed = pack_padded_sequence(ragged().pad().values, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    output, end = peer(packed)
    expected = pad_packed_sequence(output, batch_first=True)[0]
    hidden = end[0] if isinstance(end, tuple) else end
    for place, layer in enumerate(ours):
        got, state = layer(x, START)
        mine = got.pack().pad().values[:, : max(LENGTHS)]
        torch.testing.assert_close(mine, expected[..., place * 5 : place * 5 + 5])
        torch.testing.assert_close(state[0], hidden[place])  # at each row's own end, not at the padded one


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_stepped_recurrence_keeps_the_contract(cell: Any, reverse: bool) -> None:
    layer = Recurrence(cell, 6, 5, reverse).double()
    check_contract(lambda x: layer(Ragged(x.values, x.rows.step_by_step(), x.layout), None), 6, weights(layer))


@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4), (0, 2, 0, 5), (1,), (0, 0), (9, 25, 0, 17, 8, 16)])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_steps_equal_the_kernel_in_outputs_states_and_gradients(cell: Any, layout: str, lengths: Any) -> None:
    layer = Recurrence(cell, 6, 5, reverse=False).double()
    _, state = layer(ragged((3,) * len(lengths)), START)
    results = []
    for stepped in (False, True):
        x, begin = ragged(lengths), tuple(item.detach().requires_grad_() for item in state)
        values = x.values.requires_grad_()
        rows = x.rows.step_by_step() if stepped else x.rows
        x = Ragged(values, rows, "packed")
        output, end = layer(x if layout == "packed" else x.pad(), begin)
        assert output.layout == layout
        parts = [output.tokens(), *end]
        total = sum((part * torch.linspace(1, 2, part.numel()).view_as(part)).sum() for part in parts)
        asked = [values, *begin, *layer.parameters()]
        grads = torch.autograd.grad(total, asked, allow_unused=True, materialize_grads=True)
        results.append([*parts, *grads])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_run_no_fused_kernel(cell: Any) -> None:
    layer, x = Recurrence(cell, 6, 5, reverse=False), ragged().map(Tensor.float)
    with KernelWatch() as watch:
        layer(Ragged(x.values, x.rows.step_by_step(), "packed"), None)
    assert watch.describe("timestep") == "matrix products, timestep"


@pytest.mark.parametrize("cell", CELLS)
def test_independent_rows_carry_nothing_and_empty_rows_keep_their_state(cell: Any) -> None:
    layer = Recurrence(cell, 6, 5, reverse=False).double()
    assert layer(ragged(), None)[1] is None
    _, before = layer(ragged((2, 1, 3)), START)
    for layout in ("packed", "padded"):
        for lengths in ((4, 0, 2), (0, 0, 0)):
            _, after = layer(ragged(lengths, layout=layout), before)
            for old, new in zip(before, after, strict=True):
                assert torch.equal(old[1], new[1])
                assert torch.equal(old[0], new[0]) == (lengths[0] == 0)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_no_layer_waits_for_the_device(layout: Any) -> None:
    layers: list[Any] = [pooling(name, 6) for name in POOLS]
    layers.append(partial(Convolution(6, 4, 3, causal=False), before=None))
    layers += [
        partial(Recurrence(cell, 6, 5, reverse), state=state)
        for cell in CELLS
        for reverse in (False, True)
        for state in (None, START)
    ]
    values = torch.randn(sum(LENGTHS), 6, requires_grad=True)
    for layer in layers:
        rows = rows_of(LENGTHS, widen=2)
        with NoWaiting(on_host=[rows.time_major.batch_sizes]):
            x = Ragged(values, rows, "packed")
            output = layer(x if layout == "packed" else x.pad())
            output = output[0] if isinstance(output, tuple) else output
            (output.values if isinstance(output, Ragged) else output).sum().backward()


def test_half_precision_sums_do_not_round_at_each_token() -> None:
    x = Ragged(torch.ones(1000, 1, dtype=torch.bfloat16), rows_of((1000,)), "packed")
    for layout in (x, x.pad()):  # summed one by one, bf16 stops at 256
        assert pooling("sum", 1)(layout).item() == 1000
        assert pooling("mean", 1)(layout).item() == 1
        assert pooling("sum", 1)(layout).dtype is pooling("mean", 1)(layout).dtype is torch.float32


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4), (3, 0), (17, 0, 9)])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_runs_in_mixed_precision_and_carries_on(cell: Any, lengths: Any, layout: Any) -> None:
    layer, linear = Recurrence(cell, 6, 5, reverse=False), nn.Linear(6, 6)
    packed = Ragged(torch.randn(sum(lengths), 6), rows_of(lengths), "packed")
    x = packed if layout == "packed" else packed.pad()
    exact = layer(x.map(linear), START)[0].tokens()
    with torch.autocast("cpu", torch.bfloat16):
        output, end = layer(x.map(linear), START)
        layer(x.map(linear), end)
        mixed = x.map(linear)
        by_steps = layer(Ragged(mixed.values, mixed.rows.step_by_step(), layout), end)[0]
        torch.testing.assert_close(by_steps.tokens().float(), layer(mixed, end)[0].tokens().float(), rtol=0.1, atol=0.1)
    torch.testing.assert_close(output.tokens().float(), exact, rtol=0.05, atol=0.05)
