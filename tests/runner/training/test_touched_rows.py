"""Updates of touched rows, beside dense updates after which all other rows are put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.training import optimizers
from runner.training.optimizers import clip_gradients

ROWS, SIZE = 40, 3
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda params: optimizers.Sgd(params, 0.1, 0.9, nesterov=True, weight_decay=0.01, fused=True),
    "adam": lambda params: optimizers.Adam(params, 0.1, (0.9, 0.99), 1e-8, 0.01, fused=True),
    "adamw": lambda params: optimizers.AdamW(params, 0.1, (0.9, 0.99), 1e-8, 0.01, fused=True),
    "adamw, each by itself": lambda params: optimizers.AdamW(params, 0.1, weight_decay=0.01, foreach=False),
    "adadelta": lambda params: optimizers.Adadelta(params, 0.1, 0.9, 1e-6, 0.01),
    "rmsprop": lambda params: optimizers.RMSprop(params, 0.1, 0.99, 1e-8, 0.01, 0.5),
}


class Net(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(ROWS, SIZE, sparse=sparse)
        self.linear = nn.Linear(SIZE, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.linear(self.table(ids)) ** 2).sum()


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, ROWS - 5, (9,), generator=generator) for _ in range(6)]


def add_gradients(net: Net, ids: Tensor) -> None:
    for part in ids.split(5):  # micro-batches, whose gradients are added
        net(part).backward()


def states(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    return [optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def close(mine: Tensor, theirs: Tensor) -> None:
    # kernels round the last few numbers of a vector in another way, so not bit for bit
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("most", [None, 1.0])
def test_touched_rows_move_as_in_dense_updates_and_others_stay(name: str, most: float | None) -> None:
    mine, dense = Net(sparse=True).double(), Net(sparse=False).double()
    optimizer, reference = OPTIMIZERS[name](mine.parameters()), OPTIMIZERS[name](dense.parameters())
    for ids in batches():
        add_gradients(mine, ids)
        add_gradients(dense, ids)
        assert mine.table.weight.grad is not None
        assert mine.table.weight.grad.is_sparse
        norms = clip_gradients(optimizer, most), clip_gradients(reference, most)
        torch.testing.assert_close(*norms)
        for parameter, other in zip(dense.parameters(), mine.parameters(), strict=True):
            # the norm is summed in another order, so its last digit may differ
            parameter.grad = other.grad.to_dense() if other.grad is not None else None
        before, state = dense.table.weight.detach().clone(), copy.deepcopy(reference.state[dense.table.weight])
        optimizer.step()
        reference.step()
        others = torch.ones(ROWS, dtype=torch.bool).index_fill(0, ids, False)
        with torch.no_grad():
            dense.table.weight[others] = before[others]
            for key, value in reference.state[dense.table.weight].items():
                if isinstance(value, Tensor) and value.shape == before.shape:
                    value[others] = state[key][others] if key in state else 0.0
        optimizer.zero_grad()
        reference.zero_grad()
        for parameter, other in zip(mine.parameters(), dense.parameters(), strict=True):
            close(parameter, other)
    for mine_state, state in zip(states(optimizer), states(reference), strict=True):
        assert mine_state.keys() == state.keys()
        for key, value in state.items():
            if value is not None:
                close(mine_state[key], value)


@pytest.mark.parametrize("most", [None, 0.5])
def test_plain_sgd_is_the_same_as_with_dense_gradients(most: float | None) -> None:
    tables = []
    for sparse in (True, False):
        net = Net(sparse).double()
        optimizer = optimizers.Sgd(net.parameters(), 0.1)
        for ids in batches():
            add_gradients(net, ids)
            clip_gradients(optimizer, most)
            optimizer.step()
            optimizer.zero_grad()
        tables.append(net.table.weight.detach())
    torch.testing.assert_close(*tables, rtol=1e-12, atol=1e-12)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    whole, first = Net(sparse=True), Net(sparse=True)
    optimizer, stopped = OPTIMIZERS["adamw"](whole.parameters()), OPTIMIZERS["adamw"](first.parameters())
    for ids in batches()[:3]:
        for net, own in ((whole, optimizer), (first, stopped)):
            add_gradients(net, ids)
            own.step()
            own.zero_grad()
    second = Net(sparse=True)
    second.load_state_dict(first.state_dict())
    resumed = OPTIMIZERS["adamw"](second.parameters())
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for ids in batches()[3:]:
        for net, own in ((whole, optimizer), (second, resumed)):
            add_gradients(net, ids)
            own.step()
            own.zero_grad()
    assert torch.equal(whole.table.weight, second.table.weight)
