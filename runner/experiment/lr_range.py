"""Learning-rate range test (Smith 2017, Cyclical Learning Rates, arXiv:1506.01186, section 3.3).

The learning rate rises exponentially from update to update of one training. The loss hardly changes while the rate is
too low, falls while it fits, and rises again when steps overshoot. Rates are derived from the smoothed loss
m_i = sum_j b^(i-j) x_j / sum_j b^(i-j), an exponential mean with bias correction as in Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from runner.common.arrays import FloatArray, IntArray
from runner.components.run_components import Components
from runner.config.schema import RunConfig
from runner.experiment.preparation import prepare
from runner.interfaces import START
from runner.terminal.progress import track
from runner.tracking.run_folder import RunFolder
from runner.tracking.tracker import NoTracker
from runner.training.bookkeeping import NotFinite
from runner.training.loop import add_gradients, train_segment
from runner.training.schedules import Constant
from runner.training.state import Training
from runner.training.threads import choose_threads

DIVERGED = 4.0  # the loss has diverged if it is this many times the lowest smoothed loss
BELOW_MINIMUM = 10.0  # ratio of the rate at the lowest loss to the suggested rate
_SKIPPED = 0.1  # share of updates ignored at the start, where the smoothed loss averages too few losses
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


@dataclass(frozen=True)
class Range:
    """The measurements of a test of n updates."""

    rates: FloatArray  # (n,) rising
    losses: FloatArray  # (n,) mean loss of each update, before its step
    smoothed: FloatArray  # (n,) smoothed losses
    diverged: float | None  # the rate at which the loss was not finite, or DIVERGED times its lowest; None: never

    @property
    def lowest(self) -> float | None:
        """The rate at the lowest smoothed loss; None if the loss did not fall."""
        place = self._lowest()
        return None if place is None else float(self.rates[place])

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at the lowest loss; None if the loss did not fall."""
        return None if self.lowest is None else self.lowest / BELOW_MINIMUM

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over the logarithm of the rate; None if it did not fall."""
        place = self._lowest()
        if place is None:
            return None
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        return float(self.rates[self._first + int(np.argmin(slopes[self._first : place + 1]))])

    @property
    def still_falling(self) -> bool:
        """True if the loss is lowest at the end of the test, so that higher rates should be tried too."""
        return self.diverged is None and self._lowest() == len(self.rates) - 1

    @property
    def _first(self) -> int:
        return int(_SKIPPED * len(self.rates))

    def _lowest(self) -> int | None:
        """Return the update of the lowest smoothed loss, or None if it is the first one that counts."""
        if len(self.rates) < 2:
            return None
        place = self._first + int(np.argmin(self.smoothed[self._first :]))
        return place if place > self._first else None


def measure(step: Callable[[float], float], rates: Iterable[float], smoothing: float) -> Range:
    """Take a step at each of the rising rates until the loss diverges.

    Args:
        step: makes one update at a given rate and returns its loss.
        smoothing: exponential smoothing factor, from 0 (none) to below 1.
    """
    points: list[tuple[float, float, float]] = []  # rate, loss, smoothed loss
    total, weight, lowest, diverged = 0.0, 0.0, math.inf, None
    for rate in rates:
        loss = step(rate)
        if math.isfinite(loss):
            total, weight = smoothing * total + loss, smoothing * weight + 1
            points.append((rate, loss, total / weight))
            lowest = min(lowest, total / weight)
        if not math.isfinite(loss) or total / weight > DIVERGED * lowest:
            diverged = rate
            break
    used, losses, smoothed = np.array(points).reshape(-1, 3).T
    return Range(used, losses, smoothed, diverged)


def measure_range(config: RunConfig, rates: FloatArray, smoothing: float) -> Range:
    """Train the config's model from scratch, each update at the next of the `rates`. No run folder remains.

    Batches, gradient clipping and the choice of threads are those of training; there is no schedule, checkpoint or
    evaluation. `smoothing` is the exponential smoothing factor of the loss.

    Raises:
        HydromelError: the config or the data are wrong.
    """
    components = replace(Components.of(config), tracker=NoTracker())
    with tempfile.TemporaryDirectory(prefix="hydromel-") as folder, RunFolder.open(Path(folder)) as run:
        training = prepare(components.config, components, run, time.time()).training
        training = replace(training, settings=training.settings.model_copy(update={"max_updates": len(rates)}))
        choose_threads(training, lambda rows: add_gradients(training, rows, lambda phase: None))
        return measure(stepper(training), map(float, track(rates, "testing rates", len(rates))), smoothing)


def stepper(t: Training) -> Callable[[float], float]:
    """Return a function that makes the next update at a given rate and returns its mean loss (NaN: not finite).

    Parameters with a separate rate (`HasLearningRates`) keep its ratio to the optimiser's.
    """
    t = replace(t, schedule=Constant(total_updates=0, warmup=0))
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
        yield from t.batching.updates(t.train.cost_lengths, t.seed, epoch)


def draw(measured: Range, path: Path) -> None:
    """Write a PNG of the loss over the rate, on a logarithmic axis, with the derived rates."""
    import matplotlib  # takes half a second, so only here
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(measured.rates, measured.losses, color=_BLUE, alpha=0.3, lw=0.8, label="loss of each update")
        axes.plot(measured.rates, measured.smoothed, color=_BLUE, lw=2, label="smoothed")
        marks = {"suggested": (measured.suggestion, _ORANGE, "-"), "steepest": (measured.steepest, _GREEN, "--")}
        for name, (rate, colour, line) in marks.items():
            if rate is not None:
                axes.axvline(rate, color=colour, ls=line, lw=1.4, label=f"{name} {rate:.2g}")
        axes.set_xscale("log")
        if measured.lowest is not None:  # a diverging loss leaves the picture, so that its fall before stays visible
            start, lowest = measured.smoothed[0], measured.smoothed.min()
            axes.set_ylim(lowest - 0.5 * (start - lowest), start + 1.5 * (start - lowest))
        axes.set(xlabel="learning rate", ylabel="mean loss of an update")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, columnspacing=1.4)
        figure.savefig(path, dpi=160)
