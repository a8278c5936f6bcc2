"""Updates of the touched rows of large tables only, whose gradients are sparse.

A table of 30,000 vectors costs more per update than a small batch: its dense gradient is filled with zeros, clipped and
applied to every row. With a sparse gradient, the rows without one stay as they are: neither weight decay nor momentum
moves them, and their moments do not decay, as in `torch.optim.SparseAdam`. The number of steps is that of the table.
So the result equals that of a dense gradient where a row with a gradient of zero would stay as it is: in SGD without
momentum and weight decay. With Adam, rows move only in the updates that have their pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Step = Callable[..., Any]


@dataclass(frozen=True)
class _Swap:
    """A table within a group of parameters, and the matrix of its touched rows that stands in for it."""

    parameters: list[Tensor]  # of the group
    place: int
    table: Tensor  # (V, D)
    rows: nn.Parameter  # (R, D)
    index: Tensor  # (R,) the row of the table


def by_touched_rows(step: Step) -> Step:
    """Return the `step` of an elementwise optimiser that also takes sparse gradients: the usual kernels do the work."""

    @wraps(step)
    def stepped(self: Optimizer, *arguments: Any) -> Any:
        with _touched_rows(self):
            return step(self, *arguments)

    return stepped


@contextmanager
def _touched_rows(optimizer: Optimizer) -> Iterator[None]:
    """Within the context, tables with sparse gradients, and their state, are matrices of the touched rows."""
    swaps = [
        _take_out(optimizer, group["params"], place, table)
        for group in optimizer.param_groups
        for place, table in enumerate(group["params"])
        if table.grad is not None and table.grad.is_sparse
    ]
    try:
        yield
    finally:
        for swap in swaps:
            _put_back(optimizer, swap)


def _take_out(optimizer: Optimizer, parameters: list[Tensor], place: int, table: Tensor) -> _Swap:
    assert table.grad is not None
    gradient = table.grad.coalesce()
    index = gradient.indices()[0]
    rows = nn.Parameter(table.detach().index_select(0, index))
    rows.grad = gradient.values()
    parameters[place] = rows
    for name, value in optimizer.state.get(table, {}).items():
        is_table = isinstance(value, Tensor) and value.shape == table.shape
        optimizer.state[rows][name] = value.index_select(0, index) if is_table else value
    return _Swap(parameters, place, table, rows, index)


@torch.no_grad()
def _put_back(optimizer: Optimizer, swap: _Swap) -> None:
    table, state = swap.table, optimizer.state[swap.table]
    swap.parameters[swap.place] = table
    table.index_copy_(0, swap.index, swap.rows)
    for name, value in optimizer.state.pop(swap.rows, {}).items():
        if isinstance(value, Tensor) and value.shape == swap.rows.shape:
            if name not in state:
                state[name] = torch.zeros_like(table)
            state[name].index_copy_(0, swap.index, value)
        else:
            state[name] = value


def values_of(gradient: Tensor) -> Tensor:
    """Return the numbers of a gradient, sharing its memory; a sparse one must be coalesced."""
    return gradient.values() if gradient.is_sparse else gradient


def coalesce_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum the entries of sparse gradients that belong to the same row."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
