"""Every layer keeps the contract, equals a slow reference or torch's own module, and gives the literature's cases."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import check_contract, rows_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from runner.layers.attention import SelfAttention
from runner.layers.convolution import Convolution
from runner.layers.pooling import pooling
from runner.layers.recurrence import Cell, Recurrence
from runner.ragged import Ragged

POOLS = ("mean", "max", "min", "sum", "last", "first", "attention")
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


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_convolution_keeps_the_contract_and_equals_each_row_by_itself(width: int, causal: bool) -> None:
    layer = Convolution(6, 4, width, causal).double()
    check_contract(layer, 6, weights(layer))
    x = ragged()
    left = width - 1 if causal else (width - 1) // 2
    expected = []
    for row in x.values.split(list(LENGTHS)):
        edges = F.pad(row.T[None], (left, width - 1 - left))
        expected.append(F.conv1d(edges, layer.convolution.weight, layer.convolution.bias)[0].T)
    torch.testing.assert_close(layer(x).values, torch.cat(expected))


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
        got, state = layer(x, None)
        mine = got.pack().pad().values[:, : max(LENGTHS)]
        torch.testing.assert_close(mine, expected[..., place * 5 : place * 5 + 5])
        torch.testing.assert_close(state[0], hidden[place])  # at each row's own end, not at the padded one


def test_the_last_state_of_the_literature_is_that_of_each_rows_own_end() -> None:
    layer = Recurrence("lstm", 6, 5, reverse=False).double()
    x = ragged((4, 2, 8), layout="padded")
    output, state = layer(x, None)
    for row, length in enumerate((4, 2, 8)):
        torch.testing.assert_close(state[0][row], output.values[row, length - 1])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_keeps_the_contract_and_equals_torchs(causal: bool) -> None:
    layer = SelfAttention(6, 2, causal, dropout=0.0).double()
    check_contract(layer, 6, weights(layer))
    peer = nn.MultiheadAttention(6, 2, batch_first=True).double()
    assert peer.in_proj_weight is not None
    peer.in_proj_weight.data.copy_(layer.queries_keys_values.weight.data)
    peer.in_proj_bias.data.copy_(layer.queries_keys_values.bias.data)
    peer.out_proj.weight.data.copy_(layer.output.weight.data)
    peer.out_proj.bias.data.copy_(layer.output.bias.data)
    x = ragged()
    for row, mine in zip(x.values.split(list(LENGTHS)), layer(x).values.split(list(LENGTHS)), strict=True):
        hidden = torch.ones(len(row), len(row), dtype=torch.bool).triu(1) if causal else None
        torch.testing.assert_close(mine, peer(row[None], row[None], row[None], attn_mask=hidden)[0][0])


class Unsynchronised(TorchDispatchMode):
    """Raises where a GPU would be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "item")
        assert func.overloadpacket.__name__ not in waits, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_no_layer_waits_for_the_device(layout: Any) -> None:
    layers: list[Any] = [pooling(name, 6) for name in POOLS]
    layers += [Convolution(6, 4, 3, causal=False), SelfAttention(6, 2, causal=True, dropout=0.1)]
    if layout == "padded":  # packed, torch reads how many rows run at each step from the host, where that list is
        layers += [partial(Recurrence(cell, 6, 5, reverse=True), state=None) for cell in CELLS]
    values = torch.randn(sum(LENGTHS), 6, requires_grad=True)
    for layer in layers:
        with Unsynchronised():
            x = Ragged(values, rows_of(LENGTHS), "packed")
            output = layer(x if layout == "packed" else x.pad())
            output = output[0] if isinstance(output, tuple) else output
            (output.values if isinstance(output, Ragged) else output).sum().backward()


# --- worked cases from the literature -------------------------------------------------------------------------------


def one_feature(*rows: list[float], layout: Any, widen: int = 2) -> Ragged:
    x = Ragged.from_lists(list(rows))
    values = Ragged(x.values[:, None], rows_of([len(row) for row in rows], widen), "packed")
    return values if layout == "packed" else values.pad(0.0)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_pools_of_the_literature(layout: Any) -> None:
    rows = one_feature([1, 10, 8, 17, 13, 17], [22, 24, 9, 13], layout=layout)
    assert pooling("mean", 1)(rows).flatten().tolist() == [11.0, 17.0]  # 11.33 over the padded width
    assert pooling("max", 1)(one_feature([-3, -1, -4, -3, -2], layout=layout)).item() == -1  # 0 with zeros as padding
    assert pooling("min", 1)(one_feature([3, 1, 4, 3, 2], layout=layout)).item() == 1
    rows = one_feature([1, 2, 3, 4], [5, 6], [7], [], layout=layout)
    summed = F.normalize(pooling("sum", 1)(rows), dim=1)
    assert summed.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]  # unit norm, and an empty row stays finite


def test_mask_of_the_literature() -> None:
    assert rows_of((5, 3, 4)).mask.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_convolutions_of_the_literature(layout: Any) -> None:
    layer = Convolution(1, 1, 3, causal=False).double()
    layer.convolution.weight.data.copy_(torch.tensor([[[1.0, 2.0, 3.0]]]))
    layer.convolution.bias.data.zero_()  # type: ignore[union-attr]
    rows = one_feature([4, 5, 6, 7, 8], [6, 14, 7], layout=layout, widen=1)
    assert layer(rows).pack().values.flatten().tolist() == [23, 32, 38, 44, 23, 54, 55, 28]


def test_batched_scores_and_attention_weights_of_the_literature() -> None:
    features = torch.tensor([[1.0, 2, 3, 4], [13, 14, 15, 16]])
    weight = torch.tensor([[5.0, 9], [6, 10], [7, 11], [8, 12]])
    x = Ragged(features, rows_of((2,)), "packed").map(lambda values: values @ weight)
    assert x.values.tolist() == [[70, 110], [382, 614]]
    rows = rows_of((3,), widen=1)
    scores = torch.tensor([[0.5, 0.2, -1.0, 0.0, 0.0]])
    wide = type(rows)(np.array([3]), rows.device, width=5)
    weights_ = scores.masked_fill(~wide.mask, -torch.inf).softmax(dim=1)
    assert [round(value, 4) for value in weights_[0].tolist()] == [0.5092, 0.3772, 0.1136, 0, 0]
