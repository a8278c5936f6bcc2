"""Time micro-batches of a model on the run's own device: some of those that each strategy would train on.

Everything runs on a copy of the model, with a separate optimiser and a learning rate of 0. Dropout draws from
torch's generator, whose state the caller restores.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from runner.advisor.speed_model import fit_seconds, speed_terms
from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import missing_kernel
from runner.interfaces import START, BatchingStrategy, Task
from runner.layers.attention import has_attention
from runner.model import Model, device_of
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes, Updates, concatenate
from runner.training.loop import backward

SHARES = (1.0, 0.3, 1.0, 0.1)  # sizes of the pieces that are timed in turn, relative to the largest affordable piece
_PIECES = 4.0  # number of largest pieces that the time of a kind allows
_LEAST, _MOST = 5, 200  # measurements of a kind, whatever the time; more would add nothing
_RUNS_ON_GPU = (
    3  # runs of a piece that are timed together before the device is waited for, since training does not wait either
)


@dataclass(frozen=True)
class Candidate:
    """A strategy with its plan.

    Attributes:
        name: the name of the strategy in reports.
        batching: the strategy.
        train: the training set as `batching.arrange` returns it.
        updates: the updates of one epoch or more.
    """

    name: str
    batching: BatchingStrategy
    train: Batch
    updates: Updates

    def shapes(self, blocks: bool) -> Shapes:
        """Return the shapes of its micro-batches; `blocks` as in `BatchingStrategy.shapes`."""
        return self.batching.shapes(self.train.rows.host_lengths, self.updates, blocks)


@dataclass
class MicroBatchKind:
    """Micro-batches whose times follow one speed model: same layout, with or without padding, with or without adding.

    Attributes:
        batching: one of the strategies that make such micro-batches.
        train: the training set as this strategy arranges it.
        adds: whether gradients are added to those of other micro-batches.
        pool: the rows of each micro-batch of the plans.
        most_places: places of the largest piece that is timed; larger micro-batches are timed with fewer rows.
        shapes: the shape of each timed piece.
        seconds: its time.
        not_run: the kernel that this machine lacks to run them; empty if they run.
    """

    batching: BatchingStrategy
    train: Batch
    adds: bool
    pool: list[IntArray]
    most_places: float = np.inf
    shapes: list[Shapes] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    not_run: str = ""

    def lengths(self, rows: IntArray) -> IntArray:
        return self.train.rows.host_lengths[rows]

    def shape(self, rows: IntArray, blocks: bool) -> Shapes:
        """Return the shape of these rows as one micro-batch."""
        return self.batching.shapes(self.train.rows.host_lengths, [rows], blocks)

    def weights(self) -> FloatArray:
        """Return the weights of the speed model, (5,), fitted to the timed pieces."""
        return fit_seconds(speed_terms(concatenate(self.shapes)), np.array(self.seconds))


class SpeedProbe:
    """Measures the seconds of micro-batches and of the optimiser's step.

    The model is a copy on the device of training, which the probe trains with the optimiser of the copy's parameters.
    Gradients are clipped to `clip_norm` (None: not at all), and `bf16` says whether arithmetic is in bfloat16.
    """

    def __init__(
        self, model: Model, task: Task, optimizer: torch.optim.Optimizer, clip_norm: float | None, bf16: bool
    ) -> None:
        self.model, self.task, self.optimizer = model.train(), task, optimizer
        self.clip_norm, self.bf16, self.device = clip_norm, bf16, device_of(model)
        self.rng, self.blocks = np.random.default_rng(0), has_attention(model)
        self._runs = _RUNS_ON_GPU if self.device.type == "cuda" else 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = 0.0

    def predict(self, candidates: Sequence[Candidate], seconds: float) -> list[float | str]:
        """Predict the seconds that the updates of each candidate take; the probe itself takes about `seconds`.

        For a candidate that this machine cannot run, the result is torch's message about the missing kernel.
        """
        kinds: dict[Hashable, MicroBatchKind] = {}
        all_shapes = [candidate.shapes(self.blocks) for candidate in candidates]
        keys = [_key(candidate) for candidate in candidates]
        for candidate, shapes, key in zip(candidates, all_shapes, keys, strict=True):
            adds = len(shapes.rows) > len(candidate.updates)
            kind = kinds.setdefault(key, MicroBatchKind(candidate.batching, candidate.train, adds, []))
            kind.pool += np.split(np.concatenate(candidate.updates), np.cumsum(shapes.rows)[:-1])
        step = self._measure(list(kinds.values()), seconds)
        weights = {key: kind.weights() for key, kind in kinds.items() if not kind.not_run}
        return [
            kinds[key].not_run or float((speed_terms(shapes) @ weights[key]).sum()) + len(candidate.updates) * step
            for candidate, shapes, key in zip(candidates, all_shapes, keys, strict=True)
        ]

    def _measure(self, kinds: list[MicroBatchKind], seconds: float) -> float:
        """Time pieces of one kind after another; return the median time of the optimiser's step.

        Kinds of small batches come first: the C library keeps the memory that a large batch frees, and after it small
        batches would be faster than in a separate process.
        """
        share, steps = seconds / len(kinds), list[float]()
        for kind in sorted(kinds, key=lambda kind: np.median([kind.lengths(rows).sum() for rows in kind.pool])):
            try:
                steps += self._measure_kind(kind, share)
            except RuntimeError as error:
                kind.not_run = missing_kernel(error)
                if not kind.not_run:
                    raise
        return float(np.median(steps)) if steps else 0.0

    def _measure_kind(self, kind: MicroBatchKind, seconds: float) -> list[float]:
        """Time pieces of one kind for about `seconds`; return the time of each step of the optimiser."""
        steps, end = [], time.perf_counter() + seconds
        self._warm_up(kind, seconds / _PIECES)
        while len(kind.seconds) < (_MOST if time.perf_counter() < end else _LEAST):
            for share in SHARES:
                rows = self._piece(kind, share * kind.most_places)
                kind.shapes.append(kind.shape(rows, self.blocks))
                kind.seconds.append(self._seconds(kind, rows))
            steps.append(self._step())
        return steps

    def _warm_up(self, kind: MicroBatchKind, seconds: float) -> None:
        """Run a kind twice: the first run is slow, the second shows how many rows fit into `seconds`."""
        rows = self._piece(kind, 0.0)
        self._seconds(kind, rows)
        self._step()
        per_place = self._seconds(kind, rows) / int(kind.shape(rows, self.blocks).cells[0])
        kind.most_places = seconds / per_place / self._runs

    def _piece(self, kind: MicroBatchKind, places: float) -> IntArray:
        """Draw a micro-batch of the plans; if it has more than `places`, return its longest row and some others."""
        rows = kind.pool[self.rng.integers(len(kind.pool))]
        lengths = kind.lengths(rows)
        most = max(2, int(places // max(1, lengths.max())))
        if len(rows) <= most or kind.batching.carries_state:
            return rows
        longest = int(lengths.argmax())
        return np.append(rows[longest], np.delete(rows, longest)[: most - 1])

    def _seconds(self, kind: MicroBatchKind, rows: IntArray) -> float:
        """Return the time of one micro-batch: data, forward and backward."""
        if kind.adds and next(self.model.parameters()).grad is None:
            self._run(kind, rows)
        begin = self._now()
        for _ in range(self._runs):
            if not kind.adds:
                self.optimizer.zero_grad()
            self._run(kind, rows)
        return (self._now() - begin) / self._runs

    def _run(self, kind: MicroBatchKind, rows: IntArray) -> None:
        batches = list(kind.batching.micro_batches(kind.train, rows))
        count = sum(self.task.count(batch) for batch in batches)
        loss, _ = backward(self.model, batches, count, START, self.bf16, lambda phase: None)
        if self.device.type == "cpu":
            loss.item()

    def _step(self) -> float:
        """Return the time of the part of an update that runs once, whatever the number of micro-batches."""
        begin = self._now()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._now() - begin

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _key(candidate: Candidate) -> Hashable:
    """Return a key of the kind of its micro-batches; rectangles without padding may run by other kernels."""
    batching, whole = candidate.batching, candidate.shapes(blocks=False)
    unpadded = bool((whole.cells == whole.tokens).all())
    return type(batching), id(candidate.train), batching.layout, batching.micro_batch, unpadded
