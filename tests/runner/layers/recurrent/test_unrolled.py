"""Unrolled GRU and tanh RNN against torch's modules and against numerical gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from runner.interfaces import START
from runner.layers.recurrent.recurrence import Recurrence
from runner.layers.recurrent.unrolled import run_unrolled
from runner.layers.staircase import Staircase
from runner.profiling.kernels import KernelWatch
from runner.ragged.ragged import Ragged
from tests.helpers.contract import check_contract, rows_of

MODULES: dict[str, Any] = {"gru": nn.GRU, "rnn": nn.RNN}
NAMES = {"gru": "GRU unrolled", "rnn": "tanh RNN unrolled"}


def case(cell: str, lengths: list[int], dtype: torch.dtype) -> tuple[nn.RNNBase, Tensor, Tensor, list[int]]:
    """Return a module (7 inputs, 5 hidden units), time-major inputs, initial states, and rows running at each step."""
    torch.manual_seed(len(lengths))
    module = MODULES[cell](7, 5).to(dtype)
    inputs, begin = torch.randn(sum(lengths), 7, dtype=dtype), torch.randn(len(lengths), 5, dtype=dtype)
    return module, inputs.requires_grad_(), begin.requires_grad_(), Staircase(rows_of(lengths), None).running


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [[9, 6, 6, 2, 1], [4, 4, 4], [3], [1, 1]])
@pytest.mark.parametrize("cell", MODULES)
def test_outputs_and_all_gradients_are_torchs(cell: str, lengths: list[int], dtype: torch.dtype) -> None:
    module, inputs, begin, running = case(cell, lengths, dtype)
    hidden = run_unrolled(module.mode, inputs, list(module.parameters()), begin, running)
    sequence, _ = module(PackedSequence(inputs, torch.tensor(running)), begin[None])
    asked = [inputs, begin, *module.parameters()]
    weigh = torch.linspace(-1, 2, hidden.numel(), dtype=dtype).view_as(hidden)
    actual = [torch.autograd.grad((item * weigh).sum(), asked) for item in (hidden, sequence.data)]
    torch.testing.assert_close(hidden, sequence.data)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for mine, theirs in zip(*actual, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cell", MODULES)
def test_gradients_are_those_of_small_changes(cell: str) -> None:
    module, inputs, begin, running = case(cell, [4, 2, 1], torch.float64)

    def hidden(inputs: Tensor, begin: Tensor, *weights: Tensor) -> Tensor:
        return run_unrolled(module.mode, inputs, weights, begin, running)

    assert torch.autograd.gradcheck(hidden, (inputs, begin, *module.parameters()))


@pytest.mark.parametrize("cell", MODULES)
def test_a_gradient_can_be_taken_twice_but_has_none_itself(cell: str) -> None:
    module, inputs, begin, running = case(cell, [4, 2, 1], torch.float64)
    hidden = run_unrolled(module.mode, inputs, list(module.parameters()), begin, running)
    asked = [inputs, begin, *module.parameters()]
    first, second = (torch.autograd.grad(hidden.sum(), asked, retain_graph=True) for _ in range(2))
    assert all(torch.equal(item, other) for item, other in zip(first, second, strict=True))
    (by_inputs,) = torch.autograd.grad(hidden.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        by_inputs.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("cell", MODULES)
def test_inputs_without_gradients_do_not_change_those_of_weights(cell: str) -> None:
    module, inputs, begin, running = case(cell, [4, 2, 1], torch.float64)
    weights = list(module.parameters())
    learned, frozen = (
        torch.autograd.grad(run_unrolled(module.mode, item, weights, begin.detach(), running).sum(), weights)
        for item in (inputs, inputs.detach())
    )
    assert all(torch.equal(item, other) for item, other in zip(learned, frozen, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", MODULES)
def test_rows_keep_the_contract_where_equal_ones_run_unrolled_too(
    cell: Any, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recurrence, "_runs_unrolled", lambda self, x: x.rows.n_tokens > 0)
    layer = Recurrence(cell, 6, 5, reverse).double()
    check_contract(lambda x: layer(x, None), 6, list(layer.parameters()))


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", MODULES)
def test_states_at_each_rows_own_end_are_those_of_rows_by_themselves(cell: Any, reverse: bool, layout: str) -> None:
    lengths, layer = [3, 0, 5, 1], Recurrence(cell, 6, 5, reverse).double()
    x = Ragged(torch.randn(9, 6, dtype=torch.float64), rows_of(lengths), "packed")
    state = (torch.randn(4, 5, dtype=torch.float64),)
    _, end = layer(x if layout == "packed" else x.pad(torch.nan), state)
    assert end is not None
    for row, tokens in enumerate(torch.split(x.values, lengths)):
        order = tokens.flip(0) if reverse else tokens
        expected = layer.cell(order[None], state[0][None, row, None])[1][0, 0] if len(tokens) else state[0][row]
        torch.testing.assert_close(end[0][row], expected)


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([3, 1, 2], True),
        ([4, 0, 4], True),
        ([4, 4], False),  # equal lengths: torch is as fast
        ([20] * 16, True),  # except for few rows of many steps
        ([20] * 17, False),
        ([15] * 2, False),
        ([0, 0], False),
    ],
)
@pytest.mark.parametrize("cell", MODULES)
def test_when_rows_run_unrolled(cell: Any, lengths: list[int], runs: bool) -> None:
    layer, x = Recurrence(cell, 3, 4, reverse=False), Ragged(torch.randn(sum(lengths), 3), rows_of(lengths), "packed")
    with KernelWatch() as watch:
        layer(x, START)
    assert (watch.describe("packed") == f"{NAMES[cell]}, packed") == runs


def test_neither_lstms_nor_autocast_nor_stepped_rows_run_unrolled() -> None:
    lengths = np.array([3, 1])
    for cell, bf16, stepped in (("lstm", False, False), ("gru", True, False), ("gru", False, True)):
        rows = rows_of(lengths.tolist()).step_by_step() if stepped else rows_of(lengths.tolist())
        layer = Recurrence(cell, 3, 4, reverse=False)  # type: ignore[arg-type]
        with KernelWatch() as watch, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            layer(Ragged(torch.randn(4, 3), rows, "packed"), None)
        assert "unrolled" not in watch.describe("packed")
