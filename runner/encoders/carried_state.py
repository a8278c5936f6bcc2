"""The state that a causal encoder carries from one window of its texts to the next: nested lists and tuples.

They hold tensors, and numpy arrays for values that the host needs. The first dimension of each is the row, so rows can
be selected, repeated and reordered without knowing what the values mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.interfaces import State


def detach_state(state: State) -> State:
    """Return the state without its autograd history, so that no gradient flows into the previous window."""
    return _map(state, Tensor.detach, lambda array: array)


def move_state(state: State, device: torch.device) -> State:
    """Return the state with its tensors on `device`; arrays stay on the host."""
    return _map(state, lambda tensor: tensor.to(device), lambda array: array)


def select_state(state: State, rows: IntArray) -> State:
    """Return the state of the chosen `rows` (any number, in any order, on the host), such as the best of a beam."""
    index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))

    def chosen(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, index.to(tensor.device, non_blocking=True))

    return _map(state, chosen, lambda array: array[rows])


def _map(state: State, of_tensor: Callable[[Tensor], Tensor], of_array: Callable[[IntArray], IntArray]) -> State:
    """Apply functions to all tensors and arrays of a state."""
    if isinstance(state, Tensor):
        return of_tensor(state)
    if isinstance(state, np.ndarray):
        return of_array(state)
    if isinstance(state, list | tuple):
        return type(state)(_map(part, of_tensor, of_array) for part in state)
    if state is None:
        return None
    raise TypeError(f"state: got {type(state).__name__}; use tensors, arrays, lists and tuples")
