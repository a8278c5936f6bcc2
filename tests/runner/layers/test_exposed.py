"""The gates and states that a recurrent layer exposes reproduce the output of its kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from runner.encoders.rnn import Rnn
from runner.interfaces import START
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.ragged.ragged import Ragged
from tests.helpers.contract import check_contract, rows_of

CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")
LENGTHS = (5, 0, 1, 8, 3)


def ragged(size: int, layout: Any, lengths: Any = LENGTHS) -> Ragged:
    torch.manual_seed(1)
    packed = Ragged(torch.randn(sum(lengths), size, dtype=torch.float64), rows_of(lengths, widen=2), "packed")
    return packed if layout == "packed" else packed.pad(float("nan"))


def by_name(layer: Recurrence, x: Ragged, state: Any) -> dict[str, Tensor]:
    """Return each part, (N, H)."""
    result = layer.gates_and_states(x, state)
    assert result.layout == "packed"
    assert result.values.shape[1] == len(layer.parts)
    return dict(zip(layer.parts, result.values.unbind(1), strict=True))


def before(rows: Ragged, values: Tensor, begin: Tensor, reverse: bool) -> Tensor:
    """Return the state of each token's row one step before it, (N, H), by a simple loop."""
    results, at = torch.empty_like(values), 0
    for row, length in enumerate(rows.rows.host_lengths.tolist()):
        for place in range(length):
            item = place + 1 if reverse else place - 1
            results[at + place] = values[at + item] if 0 <= item < length else begin[row]
        at += length
    return results


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4)])
def test_gates_and_states_reproduce_the_kernels_output(cell: Cell, reverse: bool, layout: Any, lengths: Any) -> None:
    layer = Recurrence(cell, 6, 7, reverse).double()
    x = ragged(6, layout, lengths)
    begin = tuple(torch.randn(len(lengths), 7, dtype=torch.float64) for _ in range(2 if cell == "lstm" else 1))
    parts = by_name(layer, x, begin)
    expected = layer(x, begin)[0].pack().values
    torch.testing.assert_close(parts["hidden"], expected, rtol=0, atol=1e-14)
    old = before(x, parts["hidden"], begin[0], reverse)
    w, u, b, c = layer.cell.all_weights[0]
    if cell == "lstm":
        memory = before(x, parts["cell"], begin[1], reverse)
        new = parts["forget"] * memory + parts["input"] * parts["candidate"]
        torch.testing.assert_close(parts["cell"], new, rtol=0, atol=1e-14)
        torch.testing.assert_close(parts["hidden"], parts["output"] * torch.tanh(new), rtol=0, atol=1e-14)
        # torch's order: input, forget, candidate, output
        sums = (x.tokens() @ w.T + b + old @ u.T + c).chunk(4, dim=1)
        for name, item in zip(("input", "forget", "output"), (sums[0], sums[1], sums[3]), strict=True):
            torch.testing.assert_close(parts[name], torch.sigmoid(item), rtol=0, atol=1e-13)
    if cell == "gru":
        new = (1 - parts["update"]) * parts["candidate"] + parts["update"] * old
        torch.testing.assert_close(parts["hidden"], new, rtol=0, atol=1e-14)
        reset = torch.sigmoid((x.tokens() @ w.T + b + old @ u.T + c).chunk(3, dim=1)[0])
        torch.testing.assert_close(parts["reset"], reset, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("cell", "reverse"), [("gru", False), ("lstm", True)])
def test_gates_and_states_keep_the_contract(cell: Cell, reverse: bool) -> None:
    layer = Recurrence(cell, 6, 4, reverse).double()
    check_contract(
        lambda x: layer.gates_and_states(x, None).map(lambda values: values.flatten(1)), 6, list(layer.parameters())
    )


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("cell", CELLS)
def test_gates_and_states_of_every_layer_match_its_output(cell: Cell, layout: Any) -> None:
    """Read layers as the encoder calls them, with the state carried from one window to the next."""
    stack = Rnn(
        input_size=6,
        causal=True,
        cell=cell,
        hidden=6,
        layers=3,
        bidirectional=None,
        layer_norm=True,
        shortcut="residual",
        dropout=0.0,
        locked_dropout=0.0,
        weight_drop=0.0,
    ).double()
    seen: list[float] = []

    def compare(layer: Any, args: Any, output: Any) -> None:
        hidden = layer.gates_and_states(*args).values[:, layer.parts.index("hidden")]
        seen.append(float((hidden - output[0].pack().values).detach().abs().max()))

    for layer in stack.forwards:
        layer.register_forward_hook(compare)
    state: Any = START
    for lengths in (LENGTHS, (2, 1, 0, 4, 4)):
        _, state = stack(ragged(6, layout, lengths), state)
    assert len(seen) == 6
    assert max(seen) < 1e-13
