"""A run in training: immutable parts, and the small state that changes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Self

import torch
from pydantic import ConfigDict, GetPydanticSchema, with_config
from pydantic_core.core_schema import any_schema

from runner.batching.shares import shares_by_tokens
from runner.common.arrays import IntArray
from runner.common.records import PeakBatchRecord
from runner.components.measures import Measures
from runner.config.schema import TrainSettings
from runner.distributed.ranks import ALONE, Ranks
from runner.interfaces import START, BatchingStrategy, Schedule, SharesRows, State, Task
from runner.model import Model
from runner.profiling.accounting import Clock, CostCounters
from runner.profiling.energy import EnergyMeter
from runner.ragged.batch import Batch
from runner.ragged.shapes import places_in
from runner.terminal.progress import track
from runner.text.vocab import Vocab
from runner.tracking.run_folder import RunFolder
from runner.tracking.tracker import Tracker

if TYPE_CHECKING:
    from runner.distributed.shards import Shards  # imports much of torch, which other runs do not need

# The type of an encoder's state is open: `move_state`, which a resumed run calls, checks it.
_Unchecked = GetPydanticSchema(lambda source, handler: any_schema())


@with_config(ConfigDict(strict=True, revalidate_instances="always"))
@dataclass
class Progress:
    """The position of a run in its plan, its best result and its batch sizes; part of every checkpoint.

    Plans are functions of (seed, epoch), so (epoch, update) is enough to continue one in the middle.
    """

    epoch: int = 0  # finished epochs
    update: int = 0  # finished updates of the current epoch
    updates: int = 0  # finished updates of all epochs
    digest: str = ""  # hash of the rows of every update so far
    best: float | None = None  # highest quality on the validation set so far (larger is better)
    best_metrics: dict[str, object] = field(default_factory=dict)  # all figures of that evaluation, without tables
    best_at: int | None = None  # updates before that evaluation
    evaluated_at: int = 0  # updates before the last evaluation
    waited: int = 0  # evaluations since the best one
    carried: Annotated[State, _Unchecked] = START  # the encoder's state at the end of a stream's last window
    micro_batch: int | None = None  # rows per forward pass since memory ran out; None if it never did
    eval_batch_size: int | None = None  # the same for evaluation
    unrecorded: list[tuple[float, float]] = field(default_factory=list)  # loss and gradient norm of the last updates
    halved_at: list[int] = field(default_factory=list)  # updates, from 1, that halved micro-batches; 0: the rehearsal
    threads: int | None = None  # threads per operation; None: not chosen, as on a GPU
    peak_batch: PeakBatchRecord | None = None  # rows, width and real tokens of the largest micro-batch

    @property
    def last_epoch(self) -> int:
        """The epoch of the last update, counted from 1; one that was cut short counts."""
        return self.epoch + (self.update > 0)

    def is_over(self, settings: TrainSettings) -> bool:
        """Return True if the epochs, the updates or the patience are used up."""
        most, patience = settings.max_updates or math.inf, settings.patience or math.inf
        return self.epoch >= settings.epochs or self.updates >= most or self.waited >= patience


@dataclass
class Live:
    """Numbers for messages and the progress bar, which a thread draws; they are not in checkpoints."""

    before_epoch: int = 0  # updates before the current epoch
    epoch_updates: int = 0  # updates of the current epoch
    cost_before: tuple[int, int, float] = (0, 0, 0.0)  # tokens, pieces and seconds before this process began the epoch
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=50))  # of the last updates, as far as known


PLANS = 2  # raised if a plan changes, since a run must end with the one that it began with


@with_config(ConfigDict(strict=True, revalidate_instances="always"))
@dataclass(frozen=True)
class Origin:
    """The config, data and vocabularies of a run. Every checkpoint has them, since a resumed run must use the same."""

    config: dict[str, object]  # the options, with the stable names of classes
    fingerprint: str  # fingerprint of the data
    vocabs: dict[str, str]  # size and hash of each vocabulary
    plans: int = 1  # version of the plans (`PLANS`)


@dataclass(frozen=True)
class Training:
    """Everything that a run trains with. Only `progress`, `costs`, `live` and the state inside torch's objects change.

    The model and both data sets are on the device.
    """

    model: Model
    task: Task
    measures: Measures
    metric_name: str  # the figure of `measures` that selects the best checkpoint
    vocabs: Mapping[str, Vocab]  # vocabularies of the features and the target
    strategy: BatchingStrategy  # the strategy of the config; `batching` is the strategy in use
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Batch  # as `strategy.arrange` returns it
    valid: Batch
    settings: TrainSettings
    seed: int  # seed of the batching plans
    bf16: bool  # true if forward passes run under autocast to bfloat16
    run: RunFolder
    clock: Clock
    meter: EnergyMeter
    tracker: Tracker
    origin: Origin
    ranks: Ranks = ALONE  # the processes that compute each update together
    shards: Shards[Model] | None = None  # the parts of `model` that ranks keep; None: each has the whole model
    costs: CostCounters = field(default_factory=CostCounters)
    progress: Progress = field(default_factory=Progress)
    live: Live = field(default_factory=Live)

    @property
    def batching(self) -> BatchingStrategy:
        """The strategy, with smaller micro-batches if memory ran out."""
        if self.progress.micro_batch is None:
            return self.strategy
        return self.strategy.with_micro_batch(self.progress.micro_batch)

    @property
    def eval_batch_size(self) -> int:
        """Rows per evaluation batch: `train.eval_batch_size`, or fewer if memory ran out."""
        return self.progress.eval_batch_size or self.settings.eval_batch_size

    @contextmanager
    def whole(self) -> Iterator[Self]:
        """Yield this training with the whole model, to evaluate or save it. All ranks must enter the context."""
        if self.shards is None:
            yield self
        else:
            try:
                yield self.alone()
            finally:
                self.shards.free()

    def alone(self) -> Self:
        """Return this training with the whole model, which each rank can use by itself. All ranks must call this."""
        return self if self.shards is None else replace(self, model=self.shards.gather(), shards=None)

    def epoch_updates(self) -> Sequence[IntArray]:
        """Return the updates of the current epoch: the rows of each."""
        updates = self.batching.updates(self.train.cost_lengths, self.seed, self.progress.epoch)
        self.live.before_epoch, self.live.epoch_updates = self.progress.updates - self.progress.update, len(updates)
        self.live.cost_before = self.costs.work
        return updates

    def own_rows(self, update: IntArray) -> IntArray:
        """Return the rows of an update that this rank computes."""
        return self.shares(update)[self.ranks.rank]

    def shares(self, update: IntArray) -> list[IntArray]:
        """Return the rows of an update that each rank computes."""
        world = self.ranks.world
        if world == 1:
            return [update]
        if isinstance(self.batching, SharesRows):
            return self.batching.shares(update, world)
        return [update[share] for share in shares_by_tokens(places_in(self.train.cost_lengths[update]), world)]

    def valid_batches(self) -> Iterable[Batch]:
        """Return the batches of an evaluation on the validation set."""
        batches = self.batching.evaluation_batches(self.valid, self.eval_batch_size)
        return track(batches, "evaluating valid", self.valid.real_tokens, lambda batch: batch.real_tokens)
