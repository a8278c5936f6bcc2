"""How much memory training will take, without training: counted where it can be, else measured on small batches.

What a batch needs is measured by running a few small ones, forward and backward, on the CPU
(`runner.advisor.memory_model`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from runner.advisor.memory_model import MemoryModel, fitted, terms_of
from runner.common.arrays import IntArray
from runner.common.errors import missing_kernel
from runner.compat.torch import storage_key
from runner.data.truncation import truncate
from runner.interfaces import PADDED, START, BatchingStrategy, Head, Metric, Task
from runner.layers.attention import has_attention
from runner.layers.chunked_softmax import Chunked
from runner.model import Model
from runner.profiling.live_memory import LiveBytes
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import Shapes, Updates, with_blocks
from runner.training.loop import backward, evaluate

PROBE_CELLS = 512  # places of the largest probe: some milliseconds of most models
PROBE_WIDTH = 128  # tokens of its longest row


@dataclass(frozen=True)
class Memory:
    """Bytes of a run, each at its peak.

    Attributes:
        parameter_bytes: of the model, its buffers too.
        gradient_bytes: of all parameters.
        optimizer_bytes: what the optimiser keeps between updates.
        data_bytes: the columns of all splits, which lie on the device as a whole.
        activation_bytes: the most that the neediest micro-batch has alive besides those, forward and backward.
        update_bytes: the most that activations and gradients take together: gradients come while activations go, but
            from an update's second micro-batch on all gradients are there.
        scoring_bytes: the most that the neediest batch of evaluation has alive; there are no gradients then.
        rows, width, tokens: of the neediest micro-batch; tokens are real ones.
    """

    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    data_bytes: int
    activation_bytes: int
    update_bytes: int
    scoring_bytes: int
    rows: int
    width: int
    tokens: int

    @property
    def staying_bytes(self) -> int:
        """There all the time."""
        return self.parameter_bytes + self.optimizer_bytes + self.data_bytes

    @property
    def training_bytes(self) -> int:
        """The most while training."""
        return self.staying_bytes + self.update_bytes

    @property
    def evaluation_bytes(self) -> int:
        """The most while evaluating."""
        return self.staying_bytes + self.scoring_bytes


class MemoryEstimate:
    """Estimates for all strategies of one model, which is spent by it: it makes an update.

    Args:
        model: on the CPU, in the dtype of training.
        task: whose answers are learned.
        metric: makes the one that evaluation updates.
        optimizer: over the model's parameters.
        bf16: whether arithmetic is in bfloat16.
        eval_batch_size: rows of an evaluation batch.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        metric: Callable[[], Metric],
        optimizer: torch.optim.Optimizer,
        bf16: bool,
        eval_batch_size: int,
    ) -> None:
        self.model, self.task, self.metric, self.optimizer = model, task, metric, optimizer
        self.bf16, self.eval_batch_size = bf16, eval_batch_size
        self._chunked = [one for one in model.modules() if isinstance(one, Chunked)]
        self._attends = has_attention(model)
        self._chunk = max((one.chunk for one in self._chunked), default=None)
        self._laws: dict[tuple[type, str, bool, bool], MemoryModel] = {}

    def where_it_runs(
        self, batching: BatchingStrategy, train: Batch, others: list[Batch], updates: Updates
    ) -> Memory | str:
        """As `of`; for a strategy that this machine cannot run, what torch says of the missing kernel."""
        try:
            return self.of(batching, train, others, updates)
        except RuntimeError as error:
            if missing := missing_kernel(error):
                return missing
            raise

    def of(self, batching: BatchingStrategy, train: Batch, others: list[Batch], updates: Updates) -> Memory:
        """The estimate for one strategy.

        Args:
            train: as `batching.arrange` gave it.
            others: the splits that are evaluated.
            updates: of all epochs that are planned.
        """
        shapes = batching.shapes(train.rows.host_lengths, updates, self._attends)
        law = self._law(batching, train, shapes, training=True)
        activation_bytes, most = law.of(shapes)
        gradient_bytes = _bytes_of(self._gradients())
        update_bytes = activation_bytes + law.early_gradient_bytes
        if len(shapes.rows) > len(updates):  # several micro-batches an update
            update_bytes = gradient_bytes + max(update_bytes, law.added_bytes)
        in_evaluation = batching.evaluation_shapes(others, self.eval_batch_size, self._attends)
        scoring_bytes, _ = self._law(batching, train, in_evaluation, training=False).of(in_evaluation)
        return Memory(
            parameter_bytes=_bytes_of((*self.model.parameters(), *self.model.buffers())),
            gradient_bytes=gradient_bytes,
            optimizer_bytes=self._optimizer_bytes(),
            data_bytes=_bytes_of(column for split in (train, *others) for column in _columns(split)),
            activation_bytes=activation_bytes,
            update_bytes=max(update_bytes, gradient_bytes),
            scoring_bytes=scoring_bytes,
            rows=int(shapes.rows[most]),
            width=int(shapes.widths[most]),
            tokens=int(shapes.tokens[most]),
        )

    def measure(self, batch: Batch) -> tuple[int, int]:
        """Run one batch forward and backward: the most bytes alive besides gradients, and gradients at that moment."""
        self.model.train().zero_grad()
        return self._run(batch).peak_besides(self._gradients())

    def measure_added(self, batch: Batch) -> int:
        """Run one batch on top of another's gradients: the most bytes alive besides those."""
        return self._run(batch).peak_besides([])[0]

    def measure_scoring(self, batch: Batch) -> tuple[int, int]:
        """Evaluate one batch: the most bytes alive, and 0 of gradients."""
        live = LiveBytes(self._known(batch))
        with live:
            evaluate(self.model, self.metric(), [batch], self.bf16)
        return live.peak_besides([])

    def _run(self, batch: Batch) -> LiveBytes:
        live = LiveBytes(self._known(batch))
        with live:
            head = cast(Head, self.model.head)
            backward(self.model, head, [batch], self.task.count(batch), START, self.bf16, _no_clock)
        return live

    def _known(self, batch: Batch) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers(), *self._gradients(), *_columns(batch)]

    def _gradients(self) -> list[Tensor]:
        return [one.grad for one in self.model.parameters() if one.grad is not None]

    def _law(self, batching: BatchingStrategy, train: Batch, shapes: Shapes, training: bool) -> MemoryModel:
        """Of this strategy's layout, by least squares over some small batches."""
        one_by_one = int(shapes.rows.max()) == 1
        key = (type(batching), batching.layout, one_by_one, training)
        if key not in self._laws:
            whole = batching.with_micro_batch(None)
            some = probe_rows(train, one_by_one)
            probes = [next(iter(whole.micro_batches(one, np.arange(one.rows.n_rows)))) for one in some]
            measure = self.measure if training else self.measure_scoring
            tokens = np.array([one.rows.n_tokens for one in some])  # an unmasked batch claims to have more
            largest = probes[int(tokens.argmax())]
            with self._chunks_of(largest.real_tokens):
                peaks, gradients = np.array([measure(probe) for probe in probes]).T
                added = self.measure_added(probes[-1]) if training else 0
            rows, widths = np.array([(one.rows.n_rows, one.rows.width) for one in probes]).T
            probed = Shapes.of(rows, widths, tokens)
            if self._attends and batching.layout not in PADDED:
                in_order = np.concatenate([one.rows.host_lengths for one in some])
                probed = with_blocks(probed, in_order, "all" if training else "largest")
            terms = terms_of(probed)
            weights = fitted(terms, peaks, self._attends)
            of_chunk, least_weights = 0.0, weights
            if self._chunked:
                half = max(1, largest.real_tokens // 2)
                with self._chunks_of(largest.real_tokens - half):
                    of_chunk = max(0, int(peaks[tokens.argmax()]) - measure(largest)[0]) / half
                with self._chunks_of(1):
                    least_weights = fitted(terms, np.array([measure(probe)[0] for probe in probes]), self._attends)
            early = int(gradients[peaks.argmax()])
            self._laws[key] = MemoryModel(weights, self._chunk, of_chunk, least_weights, early, added)
        return self._laws[key]

    @contextmanager
    def _chunks_of(self, tokens: int) -> Iterator[None]:
        before = [one.chunk for one in self._chunked]
        for one in self._chunked:
            one.chunk = max(1, tokens)
        try:
            yield
        finally:
            for one, chunk in zip(self._chunked, before, strict=True):
                one.chunk = chunk

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
    return [truncate(train.select(rows), longest, "head") for rows, longest in chosen]


def _columns(split: Batch) -> list[Tensor]:
    target = split.target.values if isinstance(split.target, Ragged) else split.target
    return [*(feature.values for feature in split.features.values()), target]


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Tensors that share memory count once."""
    storages = {storage_key(one.untyped_storage()): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def _no_clock(phase: str) -> None:
    return
