"""Operations on the state of any encoder (`runner.interfaces.State`).

The first dimension of every tensor and array in a state is the row, so rows can be selected, repeated and reordered
without knowing what the values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.interfaces import State


def detach_state(state: State) -> State:
    """Return the state without its autograd history, so that no gradient flows into the previous window."""
    return _map(state, Tensor.detach)


def move_state(state: State, device: torch.device) -> State:
    """Return the state with its tensors on `device`; arrays stay on the host."""
    return _map(state, lambda tensor: tensor.to(device))


def select_state(state: State, rows: IntArray) -> State:
    """Return the state of the chosen `rows` (any number, in any order, on the host), such as the best of a beam."""
    index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
    return _map(
        state,
        lambda tensor: tensor.index_select(0, index.to(tensor.device, non_blocking=True)),
        lambda array: array[rows],
    )


def concatenate_states(states: Sequence[State]) -> State:
    """Return one state with the rows of several, in their order; all have the same structure."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat([state for state in states if isinstance(state, Tensor)])
    if isinstance(first, np.ndarray):
        return np.concatenate([state for state in states if isinstance(state, np.ndarray)])
    if isinstance(first, list | tuple):
        return type(first)(map(concatenate_states, zip(*states, strict=True)))
    return first


def _map(
    state: State,
    change_tensor: Callable[[Tensor], Tensor],
    change_array: Callable[[IntArray], IntArray] = lambda array: array,
) -> State:
    """Return the state with all of its tensors and arrays changed; raise a TypeError if it holds anything else."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return change_tensor(state)
    if isinstance(state, np.ndarray):
        return change_array(state)
    if isinstance(state, list | tuple):
        return type(state)(_map(part, change_tensor, change_array) for part in state)
    raise TypeError(f"state: got {type(state).__name__}; use tensors, arrays, lists and tuples")
