"""Time micro-batches of a model on the run's own device: some of those that each strategy would train on.

Everything runs on a copy of the model, with a separate optimiser and a learning rate of 0. Dropout draws from
torch's generator, whose state the caller restores.

A model of time predicts the time of the others. With R rows, width T and N real tokens, forward and backward take

    a + b N + c R T + d R T^2 + e T seconds,    a, b, c, d, e >= 0

d is the cost of attention, which has packed rows in several rectangles, so R T and R T^2 are sums over them. e is the
cost of a step of a recurrent layer, whatever the number of rows. The weights minimise the sum of absolute errors over
times measured on this machine: a median rather than a mean, which a momentary disturbance does not move (Koenker and
Bassett 1978; solved as a linear programme). Errors are divided by the square root of the measured time, so that large
batches weigh more, as they do in the time of an epoch, without dominating the fit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from scipy.optimize import linprog

from runner.batching.costs import computed_shapes
from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import missing_kernel
from runner.interfaces import START, BatchingStrategy, Task
from runner.model import Model, device_of, has_attention
from runner.profiling.kernels import now
from runner.ragged.batch import Batch
from runner.ragged.shapes import Shapes, concatenate, places_in, tokens_in
from runner.ragged.updates import Updates
from runner.training.loop import backward
from runner.training.optimizers import clip_gradients
from runner.training.threads import faster_number, most_threads

log = logging.getLogger(__name__)

SHARES = (1.0, 0.3, 1.0, 0.1)  # sizes of the pieces that are timed in turn, relative to the largest affordable piece
_PIECES = 4.0  # a kind's share of time allows this many pieces of the largest size
_LEAST, _MOST = 5, 200  # fewest and most measurements of a kind
_RUNS_ON_GPU = 3  # runs of a piece that are timed together, since training does not wait for the device either
# A term is used only if it improves the fit by at least this share of the times. If several fits are equally good, time
# is attributed to tokens and positions.
_LEAST_GAIN = np.array([1e-3, 0.0, 0.0, 2e-2, 1e-3])


@dataclass(frozen=True)
class Candidate:
    """A strategy with its plan."""

    name: str  # the name of the strategy in reports
    batching: BatchingStrategy  # the strategy
    train: Batch  # the training set as `batching.arrange` returns it
    updates: Updates  # the updates of one epoch or more

    def shapes(self, blocks: bool) -> Shapes:
        """Return the shapes of its micro-batches; `blocks` as in `BatchingStrategy.shapes`."""
        return computed_shapes(self.batching, self.train, self.updates, blocks)


@dataclass
class MicroBatchKind:
    """Micro-batches whose times follow one speed model.

    They have the same layout, padding in all of them or in none, and all or none add to existing gradients.
    """

    batching: BatchingStrategy  # one of the strategies that make such micro-batches
    train: Batch  # the training set as this strategy arranges it
    adds: bool  # true if gradients are added to those of other micro-batches
    pool: list[IntArray]  # the rows of each micro-batch of the plans
    most_places: float = np.inf  # limit on the positions of a timed piece; larger ones are timed with fewer rows
    shapes: list[Shapes] = field(default_factory=list)  # the shape of each timed piece
    seconds: list[float] = field(default_factory=list)  # the time of each piece
    not_run: str = ""  # the kernel that this machine lacks to run them; empty if they run

    def median_tokens(self) -> float:
        lengths = tokens_in(self.train.cost_lengths)
        return float(np.median([lengths[rows].sum() for rows in self.pool]))

    def shape(self, rows: IntArray, blocks: bool) -> Shapes:
        """Return the shape of these rows as one micro-batch."""
        return computed_shapes(self.batching, self.train, [rows], blocks)

    def weights(self) -> FloatArray:
        """Return the weights of the speed model, (5,), fitted to the timed pieces."""
        return fit_seconds(speed_terms(concatenate(self.shapes)), np.array(self.seconds))


class SpeedProbe:
    """Measures the seconds of micro-batches and of the optimiser's step.

    `model` is a copy on the training device, and `optimizer` that of the copy. Gradients are clipped to `clip_norm`
    (None: not at all), and `bf16` says whether arithmetic is in bfloat16. `epochs` are those of the run, if it chooses
    its number of threads by a trial: then so does the probe.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
        bf16: bool,
        epochs: int | None = None,
    ) -> None:
        self.epochs = epochs
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
            kind.pool += np.split(candidate.updates.rows, np.cumsum(shapes.rows)[:-1])
        self._choose_threads(candidates)
        step = self._measure(list(kinds.values()), seconds)
        weights = {key: kind.weights() for key, kind in kinds.items() if not kind.not_run}
        return [
            kinds[key].not_run or float((speed_terms(shapes) @ weights[key]).sum()) + len(candidate.updates) * step
            for candidate, shapes, key in zip(candidates, all_shapes, keys, strict=True)
        ]

    def _choose_threads(self, candidates: Sequence[Candidate]) -> None:
        """Set the number of threads that training would choose with the first candidate that this machine can run."""
        if self.epochs is None or self.device.type != "cpu" or (most := most_threads()) == 1:
            return
        for candidate in candidates:
            kind = MicroBatchKind(candidate.batching, candidate.train, False, [])
            try:
                self._run(kind, candidate.updates[0])  # the first one is slow
                left = self.epochs * len(candidate.updates)
                chosen, reason = faster_number(partial(self._run, kind), candidate.updates, left, most)
            except RuntimeError as error:
                if not missing_kernel(error):
                    raise
                continue
            finally:
                self.optimizer.zero_grad()
            torch.set_num_threads(chosen)
            log.info("speed is predicted with threads: %d, %s", chosen, reason)
            return

    def _measure(self, kinds: list[MicroBatchKind], seconds: float) -> float:
        """Time pieces of each kind in turn; return the median time of the optimiser's step.

        Kinds of small batches come first: the C library keeps the memory that a large batch frees, and after it small
        batches would be faster than in a separate process.
        """
        share, steps = seconds / len(kinds), list[float]()
        for kind in sorted(kinds, key=MicroBatchKind.median_tokens):
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
        """Draw a planned micro-batch; if it has more than `places` positions, keep its longest row and some others."""
        rows = kind.pool[self.rng.integers(len(kind.pool))]
        of_rows = places_in(kind.train.cost_lengths[rows])
        most = max(2, int(places // max(1, of_rows.max())))
        if len(rows) <= most or kind.batching.carries_state:
            return rows
        longest = int(of_rows.argmax())
        return np.append(rows[longest], np.delete(rows, longest)[: most - 1])

    def _seconds(self, kind: MicroBatchKind, rows: IntArray) -> float:
        """Return the time of one micro-batch: data, forward and backward."""
        if kind.adds and next(self.model.parameters()).grad is None:
            self._run(kind, rows)
        begin = now(self.device)
        for _ in range(self._runs):
            if not kind.adds:
                self.optimizer.zero_grad()
            self._run(kind, rows)
        return (now(self.device) - begin) / self._runs

    def _run(self, kind: MicroBatchKind, rows: IntArray) -> None:
        batches = list(kind.batching.micro_batches(kind.train, rows))
        count = sum(self.task.count(batch) for batch in batches)
        loss, _ = backward(self.model, batches, count, START, self.bf16, lambda phase: None)
        if self.device.type == "cpu":
            loss.item()

    def _step(self) -> float:
        """Return the time of the part of an update that runs once, whatever the number of micro-batches."""
        begin = now(self.device)
        if self.clip_norm is not None:
            clip_gradients(self.optimizer, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return now(self.device) - begin


def _key(candidate: Candidate) -> Hashable:
    """Return a key of the kind of its micro-batches; rectangles without padding may use other kernels."""
    batching, whole = candidate.batching, candidate.shapes(blocks=False)
    unpadded = bool((whole.cells == whole.tokens).all())
    return type(batching), id(candidate.train), batching.layout, batching.micro_batch, unpadded


def speed_terms(shapes: Shapes) -> FloatArray:
    """Return the factors of a, b, c, d and e, (M, 5)."""
    columns = [np.ones(len(shapes.rows)), shapes.tokens, shapes.cells, shapes.pairs, shapes.widths]
    return np.stack(columns, axis=1).astype(np.float64)


def fit_seconds(terms: FloatArray, seconds: FloatArray) -> FloatArray:
    """Return the weights (5,), in seconds and not negative, that fit the measured `seconds` (M,) of `terms` (M, 5)."""
    n_points, n_terms = terms.shape
    spread = np.sqrt(seconds * seconds.mean())
    scale = (terms / spread[:, None]).mean(axis=0)
    scaled, wanted = terms / spread[:, None] / scale, seconds / spread
    # the unknowns: the weight of each term, and for each measurement a bound on its absolute error
    errors = np.eye(n_points)
    above = np.concatenate([scaled, -errors], axis=1)
    below = np.concatenate([-scaled, -errors], axis=1)
    solution = linprog(
        np.concatenate([_LEAST_GAIN * n_points, np.ones(n_points)]),
        A_ub=np.concatenate([above, below]),
        b_ub=np.concatenate([wanted, -wanted]),
        method="highs",
    )
    assert solution.x is not None, solution.message  # there is a solution whatever was measured
    weights: FloatArray = solution.x[:n_terms] / scale
    return weights
