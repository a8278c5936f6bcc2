"""Times a model's micro-batches on the run's own device: some of what each strategy would train on.

Everything runs on a copy of the model with an optimiser of its own, at a learning rate of 0. Dropout draws from torch's
generator: callers put its state back.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import nn

from runner.advisor.speed_model import fitted, terms_of
from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import missing_kernel
from runner.interfaces import START, BatchingStrategy, Head, Task
from runner.layers.attention import has_attention
from runner.model import Model, device_of
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes, Updates, concatenate
from runner.training.loop import backward

SHARES = (1.0, 0.3, 1.0, 0.1)  # of the largest piece that there is time for, one after another
_PIECES = 4.0  # largest pieces that every kind has time for
_LEAST, _MOST = 5, 200  # measurements of every kind, whatever the time; more would say nothing new
_ON_GPU = 3  # times a piece runs before the device is waited for, since training does not wait either


@dataclass(frozen=True)
class Candidate:
    """A strategy with its plan.

    Attributes:
        train: as `batching.arrange` gave it.
        updates: of one epoch or more.
    """

    batching: BatchingStrategy
    train: Batch
    updates: Updates

    def shapes(self, blocks: bool) -> Shapes:
        """Return the shapes of its micro-batches; `blocks` as in `BatchingStrategy.shapes`."""
        return self.batching.shapes(self.train.rows.host_lengths, self.updates, blocks)


@dataclass
class Kind:
    """Micro-batches whose times follow one law: of one layout, with or without padding, by themselves or added up.

    Attributes:
        batching, train: of one of the strategies that make such micro-batches.
        adds: gradients are added to those of others.
        pool: the rows of each micro-batch of the plans.
        most_places: the largest piece to be timed; what is larger is timed with fewer rows.
        shapes, seconds: what was timed.
        not_run: what this machine lacks to run them; empty where they run.
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
        """Of these rows as one micro-batch."""
        return self.batching.shapes(self.train.rows.host_lengths, [rows], blocks)

    def law(self) -> FloatArray:
        return fitted(terms_of(concatenate(self.shapes)), np.array(self.seconds))


class Probe:
    """Seconds of micro-batches and of the optimiser's step.

    Args:
        model: a copy that may be spent, on the device of training.
        optimizer: over its parameters.
        clip_norm: as in training.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
        bf16: bool,
    ) -> None:
        self.model, self.task, self.optimizer = model.train(), task, optimizer
        self.clip_norm, self.bf16, self.device = clip_norm, bf16, device_of(model)
        self.rng = np.random.default_rng(0)
        self.blocks = has_attention(model)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = 0.0

    def predict(self, candidates: Sequence[Candidate], seconds: float) -> list[float | str]:
        """Seconds that the updates of each candidate would take, found in about so many `seconds`.

        For a candidate that this machine cannot run, what torch says of the missing kernel.
        """
        kinds: dict[Hashable, Kind] = {}
        shapes = [one.shapes(self.blocks) for one in candidates]
        keys = [_key(one) for one in candidates]
        for one, each, key in zip(candidates, shapes, keys, strict=True):
            kind = kinds.setdefault(key, Kind(one.batching, one.train, len(each.rows) > len(one.updates), []))
            kind.pool += np.split(np.concatenate(one.updates), np.cumsum(each.rows)[:-1])
        step = self._measure(list(kinds.values()), seconds)
        laws = {key: kind.law() for key, kind in kinds.items() if not kind.not_run}
        return [
            kinds[key].not_run or float((terms_of(each) @ laws[key]).sum()) + len(one.updates) * step
            for one, each, key in zip(candidates, shapes, keys, strict=True)
        ]

    def _measure(self, kinds: list[Kind], seconds: float) -> float:
        """Time pieces of one kind after another; the optimiser's step, in the median.

        Kinds of small batches come first: what a large one frees, the C library keeps, and small ones would then be
        faster than in a process of their own.
        """
        each, steps = seconds / len(kinds), list[float]()
        for kind in sorted(kinds, key=lambda one: np.median([one.lengths(rows).sum() for rows in one.pool])):
            try:
                steps += self._measure_kind(kind, each)
            except RuntimeError as error:
                kind.not_run = missing_kernel(error)
                if not kind.not_run:
                    raise
        return float(np.median(steps)) if steps else 0.0

    def _measure_kind(self, kind: Kind, seconds: float) -> list[float]:
        """Time pieces of one kind for about so many `seconds`; the seconds of each step of the optimiser."""
        steps, end = [], time.perf_counter() + seconds
        self._warm_up(kind, seconds / _PIECES)
        while len(kind.seconds) < (_MOST if time.perf_counter() < end else _LEAST):
            for share in SHARES:
                rows = self._piece(kind, share * kind.most_places)
                kind.shapes.append(kind.shape(rows, self.blocks))
                kind.seconds.append(self._seconds(kind, rows))
            steps.append(self._step())
        return steps

    def _warm_up(self, kind: Kind, allowed: float) -> None:
        """The first runs of a kind are slow; the second tells how large the pieces may be."""
        rows = self._piece(kind, 0.0)
        self._seconds(kind, rows)
        self._step()
        each = self._seconds(kind, rows) / int(kind.shape(rows, self.blocks).cells[0])
        kind.most_places = allowed / each / (_ON_GPU if self.device.type == "cuda" else 1)

    def _piece(self, kind: Kind, places: float) -> IntArray:
        """Any micro-batch of the plans, or the longest of its rows with so many others that it has as many `places`."""
        rows = kind.pool[self.rng.integers(len(kind.pool))]
        lengths = kind.lengths(rows)
        most = max(2, int(places // max(1, lengths.max())))
        if len(rows) <= most or kind.batching.carries_state:
            return rows
        longest = int(lengths.argmax())
        return np.append(rows[longest], np.delete(rows, longest)[: most - 1])

    def _seconds(self, kind: Kind, rows: IntArray) -> float:
        """Of one micro-batch: data, forward and backward."""
        if kind.adds and next(self.model.parameters()).grad is None:
            self._run(kind, rows)
        times = _ON_GPU if self.device.type == "cuda" else 1
        begin = self._now()
        for _ in range(times):
            if not kind.adds:
                self.optimizer.zero_grad()
            self._run(kind, rows)
        return (self._now() - begin) / times

    def _run(self, kind: Kind, rows: IntArray) -> None:
        batches = list(kind.batching.micro_batches(kind.train, rows))
        count = sum(self.task.count(batch) for batch in batches)
        head = cast(Head, self.model.head)
        loss, _ = backward(self.model, head, batches, count, START, self.bf16, lambda phase: None)
        if self.device.type == "cpu":
            loss.item()

    def _step(self) -> float:
        """Seconds of what an update does once."""
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
    """Of the law that its micro-batches follow; rectangles without padding may run by other kernels."""
    batching, whole = candidate.batching, candidate.shapes(blocks=False)
    return (
        type(batching),
        id(candidate.train),
        batching.layout,
        batching.micro_batch,
        bool((whole.cells == whole.tokens).all()),
    )
