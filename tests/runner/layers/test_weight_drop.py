"""DropConnect: one mask for all tokens and rows of an update, the same in every kernel, and off in evaluation."""

from __future__ import annotations

import copy
import warnings
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from runner.audit.tracing.module_state import with_dropout, without_dropout
from runner.common.errors import HydromelError
from runner.encoders.rnn import Rnn
from runner.interfaces import START
from runner.layers.dropout import WeightDrop, drop_values
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.ragged.ragged import Ragged
from tests.helpers.contract import rows_of

CELLS = get_args(Cell)
LENGTHS = {"rectangle": [5, 5, 5], "uneven": [5, 0, 7, 1]}


def layer(cell: Cell, drop: float, reverse: bool = False) -> Recurrence:
    torch.manual_seed(1)
    return Recurrence(cell, 3, 6, reverse, drop).double()


def inputs(lengths: list[int]) -> Ragged:
    torch.manual_seed(2)
    return Ragged(torch.randn(sum(lengths), 3, dtype=torch.float64), rows_of(lengths), "packed")


def mask_of(module: Recurrence, seed: int, drop: float) -> Tensor:
    """Return the first mask drawn from a seed."""
    torch.manual_seed(seed)
    return drop_values(torch.ones_like(module.cell.weight_hh_l0), drop)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", LENGTHS)
def test_every_kernel_computes_with_the_weights_that_one_mask_leaves(cell: Cell, reverse: bool, shape: str) -> None:
    module, x = layer(cell, 0.5, reverse).train(), inputs(LENGTHS[shape])
    plain = layer(cell, 0.0, reverse)
    mask = mask_of(module, 7, 0.5)
    with torch.no_grad():
        plain.cell.weight_hh_l0.mul_(mask)  # equals a mask that is constant over time
    stepped = Ragged(x.values, x.rows.step_by_step(), "packed")
    padded = x.pad()
    for given in (x, padded, stepped):
        for state in (None, START):
            torch.manual_seed(7)
            output, end = module(given, state)
            expected, expected_end = plain(given, state)
            torch.testing.assert_close(output.tokens(), expected.tokens())
            torch.testing.assert_close(end, expected_end)
    assert 0.2 < float((mask == 0).double().mean()) < 0.8


def test_dropped_weights_change_with_each_update_and_return_in_evaluation() -> None:
    module, x = layer("lstm", 0.5), inputs(LENGTHS["uneven"])
    plain = layer("lstm", 0.0)(x, None)[0].values
    first, second = (module.train()(x, None)[0].values for _ in range(2))
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain)
    assert torch.equal(module.eval()(x, None)[0].values, plain)
    assert torch.equal(module.cell._flat_weights[1], module.cell.weight_hh_l0), "the layer has its own weights again"


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_reach_the_weights_that_stay_and_no_others(cell: Cell) -> None:
    module, x = layer(cell, 0.5).train(), inputs(LENGTHS["uneven"])
    mask = mask_of(module, 5, 0.5)
    torch.manual_seed(5)
    module(x, None)[0].values.square().sum().backward()
    gradient = module.cell.weight_hh_l0.grad
    assert isinstance(gradient, Tensor)
    assert torch.equal(gradient != 0, mask != 0)
    for name, parameter in module.cell.named_parameters():
        assert parameter.grad is not None, name


def test_a_copy_of_a_layer_drops_its_own_weights() -> None:
    module, x = layer("lstm", 0.5).train(), inputs(LENGTHS["uneven"])
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.cell.weight_hh_l0.zero_()
        other.cell.weight_ih_l0.zero_()
    same = [item(x, None)[0].values for item in (module, other)]
    assert not torch.allclose(*same)


def test_an_audit_turns_it_off() -> None:
    """Rows share the mask by design, so an audit of dropout turns weight drop off."""
    module, x = layer("lstm", 0.5).train(), inputs(LENGTHS["uneven"])
    for off in (without_dropout(module), with_dropout(module, 0.3)):
        with off:
            assert torch.equal(module(x, None)[0].values, layer("lstm", 0.0)(x, None)[0].values)
        assert module.weight_drop.drop == 0.5


def stack(**changes: Any) -> Rnn:
    options: dict[str, Any] = {"bidirectional": None, "layer_norm": False, "shortcut": "none", "dropout": 0.0}
    options |= {"locked_dropout": 0.0, "weight_drop": 0.0, "hidden": 5, "layers": 2, "cell": "gru"}
    return Rnn(input_size=3, causal=True, **{**options, **changes})


def test_locked_dropout_has_a_rate_for_each_place() -> None:
    """Check the input of the first layer, of the second, and the last output."""
    encoder = stack(locked_dropout=[0.1, 0.2, 0.3])
    assert [item.dropout.p for item in encoder.locked] == [0.1, 0.2, 0.3]  # type: ignore[union-attr]
    assert [item.dropout.p for item in stack(locked_dropout=0.4).locked] == [0.4] * 3  # type: ignore[union-attr]
    encoder = stack(locked_dropout=[0.0, 0.0, 0.5]).double().train()
    output = encoder(inputs([4, 3]), None)[0].values
    for row in output.split([4, 3]):
        lost = (row == 0).all(dim=0)
        assert torch.equal((row == 0).any(dim=0), lost), "the same at all tokens"
    for wrong in ([0.1], [0.1] * 4, []):
        with pytest.raises(
            HydromelError, match=r"^encoder\.locked_dropout=\[.*\] has \d+ numbers; give 3: one for each layer"
        ):
            stack(locked_dropout=wrong)


def test_every_layer_of_a_stack_drops_weights_of_its_own() -> None:
    encoder = stack(weight_drop=0.5, bidirectional=None)
    assert [forward.weight_drop.drop for forward in encoder.forwards] == [0.5, 0.5]  # type: ignore[union-attr]


def test_cudnns_warning_about_dropped_weights_is_silent() -> None:
    output = (
        "RNN module weights are not part of single contiguous chunk of memory. This means they need to be compacted"
    )
    drop = WeightDrop(0.5)
    with drop.apply_to(nn.LSTM(2, 3)):
        warnings.warn(output, stacklevel=1)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", stacklevel=1)
    with pytest.raises(UserWarning, match="RNN module"):
        warnings.warn(output, stacklevel=1)
