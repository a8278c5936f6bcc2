"""What a causal encoder carries from one window of texts to the next: nests of lists and tuples.

In them lie tensors, and numpy arrays for what the host has to know. The first dimension of each is the row, so that
rows can be chosen, repeated and put in another order without knowing what any of it means.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.interfaces import State


def detached(state: State) -> State:
    """The state without its history: no gradient flows into the window before."""
    return _map(state, Tensor.detach, lambda array: array)


def moved(state: State, device: torch.device) -> State:
    """The state on `device`; what the host has to know stays there."""
    return _map(state, lambda tensor: tensor.to(device), lambda array: array)


def select_state(state: State, rows: IntArray) -> State:
    """The state of the chosen `rows` (any number, in any order, on the host), such as the best of a beam."""
    index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))

    def chosen(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, index.to(tensor.device, non_blocking=True))

    return _map(state, chosen, lambda array: array[rows])


def _map(state: State, of_tensor: Callable[[Tensor], Tensor], of_array: Callable[[IntArray], IntArray]) -> State:
    if isinstance(state, Tensor):
        return of_tensor(state)
    if isinstance(state, np.ndarray):
        return of_array(state)
    if isinstance(state, list | tuple):
        return type(state)(_map(one, of_tensor, of_array) for one in state)
    if state is None:
        return None
    raise TypeError(f"a state holds tensors, arrays, lists and tuples; got {type(state).__name__}")
