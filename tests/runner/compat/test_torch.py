"""Dispatch modes, trees, versions, storages, the weights of recurrent cells, and optimisers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.compat import torch as compat
from runner.training import optimizers


def test_a_mode_sees_every_operation() -> None:
    class Names(compat.DispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Names() as seen:
        torch.ones(2).add_(1).exp()
    assert seen.names == ["ones.default", "add_.Tensor", "exp.default"]


def test_leaves_of_a_tree() -> None:
    assert compat.tree_leaves({"a": [1, (2, 3)], "b": None}) == [1, 2, 3, None]


def test_the_version_grows_with_changes_in_place_only() -> None:
    tensor = torch.zeros(3)
    before = compat.content_version(tensor)
    _ = tensor + 1
    assert compat.content_version(tensor) == before
    tensor[:1].fill_(2)  # a view
    assert compat.content_version(tensor) > before


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_views_have_the_storage_key_of_their_base(device: str) -> None:
    base, other = torch.zeros(4, device=device), torch.zeros(4, device=device)
    key = compat.storage_key(base.untyped_storage())
    assert compat.storage_key(base[1:].untyped_storage()) == key
    assert compat.storage_key(other.untyped_storage()) != key


@pytest.mark.parametrize("bias", [True, False])
def test_weights_of_a_cell_are_replaced_within_the_context_only(bias: bool) -> None:
    cell = nn.GRU(2, 3, bias=bias)
    own = [parameter for _, parameter in cell.named_parameters()]
    assert [id(weight) for weight in compat.cell_weights(cell)] == [id(parameter) for parameter in own]
    x = torch.ones(4, 1, 2)
    before = cell(x)[0]
    with compat.with_cell_weights(cell, [torch.zeros_like(weight) for weight in own]):
        assert not cell(x)[0].any()
        assert not any(weight.any() for weight in compat.cell_weights(cell))
    assert torch.equal(cell(x)[0], before)


def test_operators_are_those_of_torch() -> None:
    operators = (
        compat.CUDNN_RNN,
        compat.CUDNN_RNN_BACKWARD,
        compat.CPU_ATTENTION,
        compat.CPU_ATTENTION_BACKWARD,
    )
    assert len({str(operator) for operator in operators}) == 4
    assert all(str(operator).startswith("aten._") for operator in operators)


OPTIMIZERS = (optimizers.Sgd, optimizers.Adam, optimizers.AdamW, optimizers.Adadelta, optimizers.RMSprop)


@pytest.mark.parametrize("ours", OPTIMIZERS)
def test_optimisers_without_the_compiler_compute_as_those_of_torch(ours: type[torch.optim.Optimizer]) -> None:
    (of_torch,) = (base for base in ours.__bases__ if base is not compat.WithoutCompiler)
    trained = []
    for kind in (ours, of_torch):
        parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        optimizer = kind([parameter], lr=0.1)  # type: ignore[call-arg]
        for _ in range(4):
            optimizer.zero_grad()
            parameter.pow(3).sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        trained.append(parameter)
    assert torch.equal(*trained)
    assert not torch.equal(trained[0], torch.arange(6.0).reshape(2, 3))


def test_an_optimiser_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from runner.training.optimizers import Adam; p = torch.nn.Parameter(torch.ones(2));"
        "o = Adam([p], fused=True); p.sum().backward(); o.step(); o.zero_grad(); o.load_state_dict(o.state_dict());"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_method_that_torch_does_not_wrap_is_refused() -> None:
    with pytest.raises(HydromelError, match="__wrapped__"):
        compat.without_compiler(torch.optim.Optimizer.register_step_pre_hook)
