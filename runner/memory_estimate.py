"""How much memory training will take, without training: counted where it can be, else measured on small batches.

What a batch needs is measured by running a few small ones, forward and backward, on the CPU, and grows with their
shape: with R rows, width T and N real tokens, the most bytes alive at once, gradients of parameters apart, are

    a + b N + c R T + d R T^2,    a, b, c, d >= 0

(the last term is what attention needs where its kernel keeps the weights). Kernels' own workspaces are not seen, nor
what an allocator keeps in reserve, nor the program itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runner.batch import Batch
from runner.batching.loader import Batching
from runner.batching.quality import FloatArray
from runner.batching.shapes import Shapes
from runner.batching.stream import Stream
from runner.columns import truncate
from runner.model import Model
from runner.ragged import IntArray, Ragged
from runner.task import START, Head, Task
from runner.train import backward

PROBE_CELLS = 512  # places of the largest probe: some milliseconds of most models
PROBE_WIDTH = 128  # tokens of its longest row


@dataclass(frozen=True)
class Memory:
    """Bytes of training at its peak.

    Attributes:
        parameter_bytes: of the model, its buffers too.
        gradient_bytes: of all parameters.
        optimizer_bytes: what the optimiser keeps between updates.
        data_bytes: the columns of train and valid, which lie on the device as a whole.
        activation_bytes: the most that the neediest batch has alive besides, forward and backward.
        early_gradient_bytes: what gradients there are already while that is alive.
        rows, width, tokens: of that batch; tokens are real ones.
    """

    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    data_bytes: int
    activation_bytes: int
    early_gradient_bytes: int
    rows: int
    width: int
    tokens: int

    @property
    def total_bytes(self) -> int:
        """Activations go as gradients come, so the two are not added up."""
        of_update = max(self.gradient_bytes, self.early_gradient_bytes + self.activation_bytes)
        return self.parameter_bytes + self.optimizer_bytes + self.data_bytes + of_update


@dataclass(frozen=True)
class Law:
    """What a batch of some layout needs, by its shape.

    Attributes:
        weights: (4,) a, b, c, d in bytes.
        early_gradient_bytes: those of the neediest probe.
    """

    weights: FloatArray
    early_gradient_bytes: int


class MemoryEstimate:
    """Estimates for all strategies of one model, which is spent by it: it makes an update.

    Args:
        model: on the CPU, in the dtype of training.
        task: whose answers are learned.
        optimizer: over the model's parameters.
        bf16: whether arithmetic is in bfloat16.
    """

    def __init__(self, model: Model, task: Task, optimizer: torch.optim.Optimizer, bf16: bool) -> None:
        self.model, self.task, self.optimizer, self.bf16 = model.train(), task, optimizer, bf16
        self._laws: dict[tuple[type, str, bool], Law] = {}

    def of(self, batching: Batching | Stream, train: Batch, valid: Batch, shapes: Shapes) -> Memory:
        """The estimate for one strategy.

        Args:
            train: as `batching.arrange` gave it.
            valid: the other split that lies on the device.
            shapes: of the micro-batches.
        """
        one_by_one = int(shapes.rows.max()) == 1
        key = (type(batching), batching.layout, one_by_one)
        if key not in self._laws:
            self._laws[key] = self._law(batching, probe_rows(train, one_by_one))
        law = self._laws[key]
        needs = _terms(shapes.tokens, shapes.rows, shapes.widths) @ law.weights
        most = int(needs.argmax())
        return Memory(
            parameter_bytes=_bytes_of((*self.model.parameters(), *self.model.buffers())),
            gradient_bytes=_bytes_of(self._gradients()),
            optimizer_bytes=self._optimizer_bytes(),
            data_bytes=_bytes_of(column for split in (train, valid) for column in _columns(split)),
            activation_bytes=round(needs[most]),
            early_gradient_bytes=law.early_gradient_bytes,
            rows=int(shapes.rows[most]),
            width=int(shapes.widths[most]),
            tokens=int(shapes.tokens[most]),
        )

    def measure(self, batch: Batch) -> tuple[int, int]:
        """Run one batch forward and backward: the most bytes alive besides gradients, and gradients at that moment."""
        self.model.zero_grad()
        known = [*self.model.parameters(), *self.model.buffers(), *_columns(batch)]
        live = LiveBytes(known)
        with live:
            head = cast(Head, self.model.head)
            backward(self.model, head, [batch], self.task.count(batch), START, self.bf16, _no_clock)
        return live.peak_besides(self._gradients())

    def _gradients(self) -> list[Tensor]:
        return [one.grad for one in self.model.parameters() if one.grad is not None]

    def _law(self, batching: Batching | Stream, some: list[Batch]) -> Law:
        """Of this strategy's layout, by least squares over some small splits."""
        whole = batching if isinstance(batching, Stream) else replace(batching, micro_batch=None)
        probes = [next(iter(whole.micro_batches(one, np.arange(one.rows.n_rows)))) for one in some]
        peaks, gradients = np.array([self.measure(probe) for probe in probes]).T
        tokens = np.array([one.rows.n_tokens for one in some])  # an unmasked batch claims to have more
        terms = _terms(tokens, *np.array([(one.rows.n_rows, one.rows.width) for one in probes]).T)
        scale = terms.max(axis=0).clip(min=1.0)
        return Law(nnls(terms / scale, peaks)[0] / scale, int(gradients[peaks.argmax()]))

    def _optimizer_bytes(self) -> int:
        """After one update, by whatever gradients the probes left."""
        if not self.optimizer.state:
            self.optimizer.step()
        values = (value for state in self.optimizer.state.values() for value in state.values())
        return _bytes_of(value for value in values if isinstance(value, Tensor))


def probe_rows(train: Batch, one_by_one: bool) -> list[Batch]:
    """Small batches of real rows, cut, that differ in rows, width and evenness.

    Rows of uneven lengths, unless there are none or they come one by one: rectangles may run by other kernels.
    """
    order = np.argsort(-train.rows.host_lengths, kind="stable")
    width = max(1, min(PROBE_WIDTH, train.rows.max_len))
    most = min(len(order), 1 if one_by_one else max(4, PROBE_CELLS // width))
    all_sorts = order[np.linspace(0, len(order) - 1, most).astype(np.int64)]
    chosen: list[tuple[IntArray, int]] = [
        (all_sorts, width),
        (all_sorts[:: 2 if most > 2 else 1], width),
        (np.append(order[: most - 1], order[-1]), width),  # nearly even
        (np.append(order[:1], order[len(order) - most + 1 :]), width),  # very uneven
        (all_sorts, max(1, width // 2)),
        (all_sorts, max(1, width // 4)),
    ]
    return [truncate(train.select(rows), longest) for rows, longest in chosen]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of tensors that are made while it is entered, from their making until the last is gone.

    Args:
        known: tensors that were there before; neither they nor views of them count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages = {one.untyped_storage()._cdata: 0 for one in known}  # address -> number; 0: does not count
        self._events: list[tuple[int, int]] = [(0, 0)]  # number of a storage, bytes that came (or, negative, went)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and (storage := one.untyped_storage())._cdata not in self._storages:
                self._follow(storage)
        return result

    def peak_besides(self, kept: Iterable[Tensor]) -> tuple[int, int]:
        """The most bytes alive at once that are not `kept`'s, and how many of those were there at that moment."""
        theirs = [self._storages.get(one.untyped_storage()._cdata, 0) for one in kept]
        numbers, sizes = np.array(self._events).T
        alive_kept = np.cumsum(np.where(np.isin(numbers, theirs), sizes, 0))
        alive = np.cumsum(sizes) - alive_kept
        most = int(alive.argmax())
        return int(alive[most]), int(alive_kept[most])

    def _follow(self, storage: torch.UntypedStorage) -> None:
        number = len(self._events)
        self._storages[storage._cdata] = number
        self._events.append((number, storage.nbytes()))
        weakref.finalize(storage, self._forget, storage._cdata, number, storage.nbytes())

    def _forget(self, address: int, number: int, n_bytes: int) -> None:
        del self._storages[address]
        self._events.append((number, -n_bytes))


def _terms(tokens: IntArray, rows: IntArray, widths: IntArray) -> FloatArray:
    """(M, 4) what a, b, c and d are multiplied by."""
    cells = rows * widths
    return np.stack([np.ones(len(rows)), tokens, cells, cells * widths], axis=1).astype(np.float64)


def _columns(split: Batch) -> list[Tensor]:
    target = split.target.values if isinstance(split.target, Ragged) else split.target
    return [*(feature.values for feature in split.features.values()), target]


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Tensors that share memory count once."""
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def _no_clock(phase: str) -> None:
    return
