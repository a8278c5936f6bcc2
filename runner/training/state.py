"""A run in training: immutable parts, and the small state that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from runner.common.records import PeakBatchRecord
from runner.components.measures import Measures
from runner.config.schema import TrainSettings
from runner.interfaces import START, BatchingStrategy, Schedule, State, Task
from runner.model import Model
from runner.profiling.accounting import Clock, CostCounters
from runner.profiling.energy import EnergyMeter
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab
from runner.tracking.run_folder import RunFolder
from runner.tracking.tracker import Tracker


@dataclass
class Progress:
    """The position of a run in its plan, its best result and its batch sizes; part of every checkpoint.

    Plans are functions of (seed, epoch), so (epoch, update) is enough to continue one in the middle.

    Attributes:
        epoch: finished epochs.
        update: finished updates of the current epoch.
        updates: finished updates of all epochs.
        digest: hash of the rows of every update so far.
        best: highest quality on the validation set so far (larger is better).
        best_metrics: all metrics of that evaluation.
        waited: evaluations since then.
        carried: the encoder's state at the end of a stream's last window.
        micro_batch: rows per forward pass since memory ran out; None if it never did.
        eval_batch_size: the same for evaluation.
        halved_at: updates, counted from 1, at which micro-batches were halved; 0 is the check before training.
        peak_batch: rows, width and real tokens of the largest micro-batch.
    """

    epoch: int = 0
    update: int = 0
    updates: int = 0
    digest: str = ""
    best: float | None = None
    best_metrics: dict[str, object] = field(default_factory=dict)
    waited: int = 0
    carried: State = START
    micro_batch: int | None = None
    eval_batch_size: int | None = None
    halved_at: list[int] = field(default_factory=list)
    peak_batch: PeakBatchRecord | None = None

    @property
    def last_epoch(self) -> int:
        """The epoch of the last update, counted from 1; one that was cut short counts."""
        return self.epoch + (self.update > 0)


@dataclass(frozen=True)
class Training:
    """Everything that a run trains with. Only `progress`, `costs` and the state inside torch's objects change.

    Attributes:
        model: on the device, in the dtype of training.
        task: counts the targets of a batch.
        measures: the metrics of every evaluation.
        metric_name: their figure that selects the best checkpoint.
        vocabs: of the features and the target.
        strategy: the configured batching strategy; `batching` is the one in use.
        optimizer: of the model's parameters.
        schedule: gives the learning rate's factor at each update.
        train: the training set as `strategy.arrange` returns it, on the device.
        valid: the validation set, on the device.
        settings: the `train` section of the config.
        seed: of the batching plans.
        bf16: whether forward passes run under autocast to bfloat16.
        run: the run's folder.
        clock: seconds by phase.
        meter: the device's energy counter.
        tracker: where the records of the folder are delivered.
        costs: counts over all updates.
        progress: the position in the plan.
    """

    model: Model
    task: Task
    measures: Measures
    metric_name: str
    vocabs: Mapping[str, Vocab]
    strategy: BatchingStrategy
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Batch
    valid: Batch
    settings: TrainSettings
    seed: int
    bf16: bool
    run: RunFolder
    clock: Clock
    meter: EnergyMeter
    tracker: Tracker
    costs: CostCounters = field(default_factory=CostCounters)
    progress: Progress = field(default_factory=Progress)

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
