"""Estimate the memory of training without training: from counts where possible, else from small batches.

Small batches run forward and backward on the CPU, and a model of their peaks extrapolates to the batches of a strategy
(`runner.advisor.memory_model`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runner.advisor.memory_model import MemoryModel, fit_bytes, memory_terms
from runner.batching.costs import computed_shapes
from runner.common.arrays import IntArray
from runner.common.errors import missing_kernel
from runner.compat.torch import storage_key
from runner.components.measures import Measures
from runner.data.truncation import Truncation
from runner.interfaces import PADDED, START, BatchingStrategy, Task
from runner.layers.chunked_softmax import Chunked
from runner.model import Model, has_attention, with_pieces
from runner.profiling.live_memory import LiveBytes
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import Shapes, Together, concatenate, places_in, shapes_of, with_blocks
from runner.training.evaluation import evaluate
from runner.training.loop import backward

PROBE_CELLS = 512  # positions of the largest probe batch; takes a few milliseconds with most models
PROBE_WIDTH = 128  # most tokens per row of a probe batch


@dataclass(frozen=True)
class MemoryUse:
    """The estimated memory of a run, in bytes, each at its peak."""

    parameter_bytes: int  # the model's parameters and buffers
    gradient_bytes: int  # the gradients of all parameters
    optimizer_bytes: int  # the optimiser's state between updates
    data_bytes: int  # the columns of all splits, which are on the device as a whole
    activation_bytes: int  # the peak of the largest micro-batch, forward and backward, beyond all above
    # The peak of activations and gradients together. Gradients appear while activations are freed, but from the second
    # micro-batch of an update all gradients exist.
    update_bytes: int
    scoring_bytes: int  # the peak of the largest evaluation batch, which has no gradients
    rows: int  # number of rows of the micro-batch that needs most memory
    width: int  # its longest row, in tokens
    tokens: int  # its number of real tokens

    @property
    def staying_bytes(self) -> int:
        """The memory that is in use all the time."""
        return self.parameter_bytes + self.optimizer_bytes + self.data_bytes

    @property
    def training_bytes(self) -> int:
        """The peak of memory in training."""
        return self.staying_bytes + self.update_bytes

    @property
    def evaluation_bytes(self) -> int:
        """The peak of memory in evaluation."""
        return self.staying_bytes + self.scoring_bytes


class MemoryEstimator:
    """Estimates the memory that any strategy needs with one model. Its small batches make one update of that model.

    The model is on the CPU, in the dtype of training. `metric` returns a new metric, which evaluation updates, and
    `bf16` says whether arithmetic is in bfloat16.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        metric: Callable[[], Measures],
        optimizer: torch.optim.Optimizer,
        bf16: bool,
        eval_batch_size: int,
    ) -> None:
        self.model, self.task, self.metric, self.optimizer = model, task, metric, optimizer
        self.bf16, self.eval_batch_size = bf16, eval_batch_size
        self._chunked = [module for module in model.modules() if isinstance(module, Chunked)]
        self._attends = has_attention(model)
        self._chunk = max((module.chunk for module in self._chunked), default=None)
        self._memory_models: dict[tuple[type, str, bool, bool], MemoryModel] = {}

    def estimate_or_missing_kernel(
        self, batching: BatchingStrategy, train: Batch, others: list[Batch], updates: Sequence[IntArray]
    ) -> MemoryUse | str:
        """Return the estimate, or torch's message about the missing kernel if this machine cannot run the strategy."""
        try:
            return self.estimate(batching, train, others, updates)
        except RuntimeError as error:
            if missing := missing_kernel(error):
                return missing
            raise

    def estimate(
        self, batching: BatchingStrategy, train: Batch, others: list[Batch], updates: Sequence[IntArray]
    ) -> MemoryUse:
        """Return the estimate for one strategy, from the updates of all planned epochs.

        `train` is the training set as `batching.arrange` returns it, `others` are the splits that are evaluated.
        """
        shapes = computed_shapes(batching, train, updates, self._attends)
        memory_model = self._memory_model(batching, train, shapes, training=True)
        activation_bytes, neediest = memory_model.peak(shapes)
        gradient_bytes = _bytes_of(self._gradients())
        update_bytes = activation_bytes + memory_model.early_gradient_bytes
        if len(shapes.rows) > len(updates):  # updates have several micro-batches
            update_bytes = gradient_bytes + max(update_bytes, memory_model.added_bytes)
        in_evaluation = batching.evaluation_shapes(others, self.eval_batch_size, self._attends)
        scoring_bytes, _ = self._memory_model(batching, train, in_evaluation, training=False).peak(in_evaluation)
        return MemoryUse(
            parameter_bytes=_bytes_of((*self.model.parameters(), *self.model.buffers())),
            gradient_bytes=gradient_bytes,
            optimizer_bytes=self._optimizer_bytes(),
            data_bytes=_bytes_of(column for split in (train, *others) for column in _columns(split)),
            activation_bytes=activation_bytes,
            update_bytes=max(update_bytes, gradient_bytes),
            scoring_bytes=scoring_bytes,
            rows=int(shapes.rows[neediest]),
            width=int(shapes.widths[neediest]),
            tokens=int(shapes.tokens[neediest]),
        )

    def measure(self, batch: Batch) -> tuple[int, int]:
        """Run one batch forward and backward; return the bytes at the peak, first without gradients, then gradients."""
        self.model.train().zero_grad()
        return self._run(batch).peak_besides(self._gradients())

    def measure_scoring(self, batch: Batch) -> tuple[int, int]:
        """Evaluate one batch; return the peak in bytes, and 0 for gradients."""
        live = LiveBytes(self._known(batch))
        with live:
            evaluate(self.model, self.metric(), [batch], self.bf16)
        return live.peak_besides([])

    def _run(self, batch: Batch) -> LiveBytes:
        live = LiveBytes(self._known(batch))
        with live:
            backward(self.model, [batch], self.task.count(batch), START, self.bf16, lambda phase: None)
        return live

    def _known(self, batch: Batch) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers(), *self._gradients(), *_columns(batch)]

    def _gradients(self) -> list[Tensor]:
        gradients = (parameter.grad for parameter in self.model.parameters())
        return [gradient for gradient in gradients if gradient is not None and not gradient.is_sparse]

    def _memory_model(self, batching: BatchingStrategy, train: Batch, shapes: Shapes, training: bool) -> MemoryModel:
        """Return the memory model of this strategy's layout, fitted to some small batches; it is fitted once."""
        one_by_one = int(shapes.rows.max()) == 1
        key = (type(batching), batching.layout, one_by_one, training)
        if key not in self._memory_models:
            small = [with_pieces(self.model, rows) for rows in probe_rows(train, one_by_one)]
            self._memory_models[key] = self._fit(batching, small, training)
        return self._memory_models[key]

    def _fit(self, batching: BatchingStrategy, small: list[Batch], training: bool) -> MemoryModel:
        """Fit a memory model to the small batches, laid out by the strategy."""
        whole = batching.with_micro_batch(None)
        probes = [next(iter(whole.micro_batches(rows, np.arange(len(rows.index))))) for rows in small]
        measure = self.measure if training else self.measure_scoring
        tokens = np.array([rows.rows.n_tokens for rows in small])  # an unmasked batch counts padding too
        largest = probes[int(tokens.argmax())]
        with self._chunks_of(largest.real_tokens):
            peaks, gradients = np.array([measure(probe) for probe in probes]).T
            added_bytes = self._run(probes[-1]).peak_besides([])[0] if training else 0
        together: Together | None = "all" if training else "largest"
        together = together if self._attends and batching.layout not in PADDED else None
        probed = concatenate([_shape(*pair, together) for pair in zip(small, probes, strict=True)])
        terms = memory_terms(probed)
        weights = fit_bytes(terms, peaks, self._attends)
        of_chunk, least_weights = 0.0, weights
        # Comparing the largest batch in one chunk and in two gives the bytes per token of a chunk. Chunks of one token
        # show what is needed however small the chunks are.
        if self._chunked:
            half = max(1, largest.real_tokens // 2)
            with self._chunks_of(largest.real_tokens - half):
                of_chunk = max(0, int(peaks[tokens.argmax()]) - measure(largest)[0]) / half
            with self._chunks_of(1):
                least_weights = fit_bytes(terms, np.array([measure(probe)[0] for probe in probes]), self._attends)
        early_gradient_bytes = int(gradients[peaks.argmax()])
        return MemoryModel(weights, self._chunk, of_chunk, least_weights, early_gradient_bytes, added_bytes)

    @contextmanager
    def _chunks_of(self, tokens: int) -> Iterator[None]:
        before = [module.chunk for module in self._chunked]
        for module in self._chunked:
            module.chunk = max(1, tokens)
        try:
            yield
        finally:
            for module, chunk in zip(self._chunked, before, strict=True):
                module.chunk = chunk

    def _optimizer_bytes(self) -> int:
        """Return the size of the optimiser's state, after an update with the gradients that the small batches left."""
        if not self.optimizer.state:
            self.optimizer.step()
        values = (value for state in self.optimizer.state.values() for value in state.values())
        return _bytes_of(value for value in values if isinstance(value, Tensor))


def probe_rows(train: Batch, one_by_one: bool) -> list[Batch]:
    """Return small batches of real rows, truncated, that differ in number of rows, width and evenness of lengths.

    Lengths within a batch differ if possible, since batches of equal lengths may use other kernels. With `one_by_one`,
    each batch has one row.
    """
    order = np.argsort(-places_in(train.cost_lengths), kind="stable")
    width = max(1, min(PROBE_WIDTH, train.rows.max_len))
    most = min(len(order), 1 if one_by_one else max(4, PROBE_CELLS // width))
    all_sorts = order[np.linspace(0, len(order) - 1, most).astype(np.int64)]
    chosen: list[tuple[IntArray, int]] = [
        (all_sorts, width),
        (all_sorts[:: 2 if most > 2 else 1], width),
        (np.append(order[: most - 1], order[-1]), width),  # almost equal lengths
        (np.append(order[:1], order[len(order) - most + 1 :]), width),  # very different lengths
        (all_sorts, max(1, width // 2)),
        (all_sorts, max(1, width // 4)),
    ]
    return [Truncation(longest, "head").apply(train.select(rows)) for rows, longest in chosen]


def _shape(rows: Batch, probe: Batch, together: Together | None) -> Shapes:
    """Return the shape of some rows, laid out as `probe`, if packed ones run in blocks (`with_blocks`), or None."""
    shape = shapes_of([np.arange(len(rows.index))], rows.cost_lengths, width_multiple=probe.rows.width_multiple)
    if rows.pieces is None:  # a stream cuts its rows in other ways
        n_rows, width = np.array([len(probe.index)]), np.array([probe.rows.width])
        shape = Shapes.of(n_rows, width, np.array([rows.rows.n_tokens]), probe.texts * n_rows)
    elif rows.pieces.always_padded:
        return shape
    return with_blocks(shape, rows.cost_lengths, together) if together else shape


def _columns(split: Batch) -> list[Tensor]:
    target = split.target.values if isinstance(split.target, Ragged) else split.target
    return [*(feature.values for feature in split.features.values()), target]


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the size of the tensors' memory, in bytes; tensors that share memory count once."""
    storages = {storage_key(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
