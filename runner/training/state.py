"""The parts of a run in training, and its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.config.schema import TrainSettings
from runner.interfaces import START, Head, Metric, Schedule, State, Task
from runner.model import Model
from runner.profiling.accounting import Clock, CostCounters
from runner.profiling.energy import EnergyMeter
from runner.ragged.batch import Batch
from runner.tracking.run_folder import RunFolder


@dataclass
class Progress:
    """How far training has come; with (epoch, update) any plan can be taken up where it was left."""

    epoch: int = 0
    update: int = 0  # within the epoch
    updates: int = 0  # in all
    digest: str = ""  # of the rows of every update so far
    best: float | None = None  # of the chosen metric on valid, larger is better
    best_metrics: dict[str, Any] = field(default_factory=dict)
    waited: int = 0  # evaluations since then
    carried: State = START  # of a stream
    micro_batch: int | None = None  # rows at once, since memory ran out; None: it never did
    eval_batch_size: int | None = None  # the same of evaluation
    halved_at: list[int] = field(default_factory=list)  # updates, from 1, at which it did; 0: before training
    peak_batch: dict[str, int] | None = None  # rows, width and real tokens of the neediest micro-batch

    @property
    def last_epoch(self) -> int:
        """The epoch of the last update, counted from 1; one that was cut short counts."""
        return self.epoch + (self.update > 0)


@dataclass
class Training:
    """All that one run trains with."""

    model: Model
    head: Head
    task: Task
    metric: Callable[[], Metric]
    metric_name: str
    batching: Batching | Stream
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train: Batch  # as `batching.arrange` gave it
    valid: Batch
    settings: TrainSettings
    seed: int
    bf16: bool
    run: RunFolder
    clock: Clock
    meter: EnergyMeter
    save: Callable[[str], None]  # a checkpoint of that name
    after_evaluation: Callable[[dict[str, Any], float], None]  # metrics of valid, mean loss of the epoch
    account: CostCounters = field(default_factory=CostCounters)
    progress: Progress = field(default_factory=Progress)
