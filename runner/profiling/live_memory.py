"""How many bytes of tensors are alive at once while some code runs, on any device and without its allocator's help."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.compat.torch import DispatchMode, storage_key, tree_leaves


class LiveBytes(DispatchMode):
    """Follows the memory of tensors that are made while it is entered, from their making until the last is gone.

    Args:
        known: tensors that were there before; neither they nor views of them count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._storages = {
            storage_key(one.untyped_storage()): 0 for one in known
        }  # address -> number; 0: does not count
        self._events: list[tuple[int, int]] = [(0, 0)]  # number of a storage, bytes that came (or, negative, went)

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode whole recurrences come here as one function; their parts are to be seen
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and storage_key(storage := one.untyped_storage()) not in self._storages:
                self._follow(storage)
        return result

    def peak_besides(self, kept: Iterable[Tensor]) -> tuple[int, int]:
        """The most bytes alive at once that are not `kept`'s, and how many of those were there at that moment."""
        theirs = [self._storages.get(storage_key(one.untyped_storage()), 0) for one in kept]
        numbers, sizes = np.array(self._events).T
        alive_kept = np.cumsum(np.where(np.isin(numbers, theirs), sizes, 0))
        alive = np.cumsum(sizes) - alive_kept
        most = int(alive.argmax())
        return int(alive[most]), int(alive_kept[most])

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, number = storage_key(storage), len(self._events)
        self._storages[key] = number
        self._events.append((number, storage.nbytes()))
        weakref.finalize(storage, self._forget, key, number, storage.nbytes())

    def _forget(self, address: int, number: int, n_bytes: int) -> None:
        del self._storages[address]
        self._events.append((number, -n_bytes))
