"""The bytes of tensors that are alive at once while some code runs, on any device, without its allocator's help."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from runner.compat.torch import DispatchMode, Operator, storage_key, tree_leaves


class LiveBytes(DispatchMode):
    """A context that follows the memory of tensors created within it, until the last tensor that shares it is gone.

    Neither the `known` tensors, which exist already, nor views of them count. If more than `limit` bytes are alive, a
    MemoryError is raised (None: no limit).
    """

    def __init__(self, known: Iterable[Tensor], limit: int | None = None) -> None:
        super().__init__()
        self.alive, self.limit = 0, limit
        # storage -> its number; storages with number 0 do not count
        self._numbers = {storage_key(tensor.untyped_storage()): 0 for tensor in known}
        self._events: list[tuple[int, int]] = [(0, 0)]  # number of a storage, bytes allocated (negative: freed)

    def __torch_dispatch__(
        self, func: Operator, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        # In inference mode a whole recurrence arrives as one operation; its parts allocate memory too.
        with self:
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # a sparse tensor has no memory of its own: its values and indices are tensors
            if (
                isinstance(leaf, Tensor)
                and not leaf.is_sparse
                and storage_key(storage := leaf.untyped_storage()) not in self._numbers
            ):
                self._follow(storage)
        return result

    def peak_besides(self, kept: Iterable[Tensor]) -> tuple[int, int]:
        """Return the peak of bytes alive besides those of `kept`, and the bytes of `kept` alive at that moment."""
        kept_numbers = [self._numbers.get(storage_key(tensor.untyped_storage()), 0) for tensor in kept]
        numbers, sizes = np.array(self._events).T
        kept_alive = np.cumsum(np.where(np.isin(numbers, kept_numbers), sizes, 0))
        others_alive = np.cumsum(sizes) - kept_alive
        peak = int(others_alive.argmax())
        return int(others_alive[peak]), int(kept_alive[peak])

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, number = storage_key(storage), len(self._events)
        self._numbers[key] = number
        self._events.append((number, storage.nbytes()))
        weakref.finalize(storage, self._forget, key, number, storage.nbytes())
        self.alive += storage.nbytes()
        if self.limit is not None and self.alive > self.limit:
            raise MemoryError(f"{self.alive:,} bytes needed at once, {self.limit:,} available")

    def _forget(self, key: int, number: int, n_bytes: int) -> None:
        del self._numbers[key]
        self.alive -= n_bytes
        self._events.append((number, -n_bytes))
