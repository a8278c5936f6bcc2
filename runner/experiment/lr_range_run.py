"""Run the learning-rate range test of a configured run: its own data, model, batches and optimiser."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from runner.common.arrays import IntArray
from runner.components.run_components import Components
from runner.config.schema import RunConfig
from runner.experiment.lr_range import Floats, Range, measure
from runner.experiment.preparation import prepare
from runner.experiment.run import start_folder
from runner.interfaces import START
from runner.tracking.tracker import NoTracker
from runner.training.bookkeeping import NotFinite
from runner.training.loop import train_segment
from runner.training.schedules import Constant
from runner.training.state import Training


def measure_range(config: RunConfig, rates: Floats, smoothing: float) -> Range:
    """Train the config's model from scratch, each update at the next of the `rates`. No run folder remains.

    Batches and gradient clipping are those of training; there is no schedule, checkpoint or evaluation.

    Args:
        config: of the run.
        rates: of the updates, rising.
        smoothing: exponential smoothing factor of the loss.

    Raises:
        HydromelError: the config or the data are wrong.
    """
    components = replace(Components.of(config), tracker=NoTracker())
    with tempfile.TemporaryDirectory(prefix="hydromel-") as folder, start_folder(config, Path(folder)) as run:
        training = prepare(config, components, run, time.time()).training
        return measure(stepper(training), map(float, rates), smoothing)


def stepper(t: Training) -> Callable[[float], float]:
    """Return a function that makes the next update at a given rate and returns its mean loss (NaN: not finite).

    Parameters with a separate rate (`HasLearningRates`) keep its ratio to the optimiser's.
    """
    t = replace(t, schedule=Constant())
    updates = _updates(t)

    def step(rate: float) -> float:
        for group in t.optimizer.param_groups:
            group["initial_lr"] = rate * group["learning_rate_factor"]
        rows, losses = next(updates), list[float]()
        try:
            while not losses:  # if memory runs out the update is repeated in smaller micro-batches
                losses = train_segment(t, [rows])
        except NotFinite:
            return math.nan
        return losses[0]

    return step


def _updates(t: Training) -> Iterator[IntArray]:
    """Yield the rows of each update, epoch after epoch."""
    for epoch in count():
        t.progress.epoch, t.progress.update, t.progress.carried = epoch, 0, START
        yield from t.batching.updates(t.train.rows.host_lengths, t.seed, epoch)
