"""The metrics of a run, measured together: those of the task, and the one that the config adds (`metric=NAME`)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from runner.common.errors import HydromelError, did_you_mean
from runner.interfaces import InputKind, Metric, Scale, Task
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.scored import scored_losses, scored_predictions
from runner.text.vocab import Vocab

LOSS = "loss"  # name of the figure


class MeanLoss:
    """The loss that training minimises, per target, without dropout; the mean of a split, not of its batches."""

    scales: Mapping[str, Scale] = {LOSS: Scale("", higher_is_better=False)}
    input_kind: InputKind = "losses"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self._total: Tensor | float = 0.0  # float64, so that rounding does not depend on the batches
        self._count = 0

    def update(self, losses: Tensor, batch: Batch) -> None:
        """Add the losses of a batch's targets, or rows."""
        self._total = self._total + losses.double().sum()
        self._count += batch.n_targets

    def compute(self) -> dict[str, float]:
        """Return the figure `loss`; NaN if no target has one."""
        return {LOSS: float(self._total) / self._count if self._count else math.nan}


@dataclass(frozen=True)
class Measures:
    """The metrics that every evaluation of a run computes."""

    metrics: tuple[Metric, ...]  # the task's metric, the configured one if there is one, and the loss; not started
    main: str  # name of the figure by which runs are compared
    n_targets: int = 0  # once started: number of targets that a model can predict

    @classmethod
    def of(cls, task: Task, added: Metric | None = None) -> Measures:
        """Return the task's measures and the loss; a metric that the config adds becomes the main one.

        Raises:
            HydromelError: the added metric has no figures, has one with the name of a figure of the task, or does not
                measure predictions of the task's kind.
        """
        if added is None:
            return cls((task.metric, MeanLoss()), task.main_metric)
        if not added.scales:
            raise HydromelError(f"metric: {type(added).__name__} has no figures; name at least one")
        own: InputKind = "predictions" if task.metric.input_kind == "losses" else task.metric.input_kind
        if added.input_kind not in (own, "losses"):
            raise HydromelError(
                f"metric: {type(added).__name__} measures {added.input_kind}, but task={task.name} predicts {own}; use "
                "another metric, or metric=null"
            )
        if common := sorted(added.scales.keys() & {*task.metric.scales, LOSS}):
            raise HydromelError(
                f"metric: task={task.name} measures '{common[0]}' itself; give the figure of {type(added).__name__} "
                "another name, or use metric=null"
            )
        return cls((task.metric, added, MeanLoss()), next(iter(added.scales)))

    @property
    def scales(self) -> dict[str, Scale]:
        """The scales of all figures that can be measured, by name."""
        return {name: scale for metric in self.metrics for name, scale in metric.scales.items()}

    @property
    def input_kinds(self) -> frozenset[InputKind]:
        """The inputs that the metrics need."""
        return frozenset(metric.input_kind for metric in self.metrics)

    def check(self, figure: str | None, where: str) -> None:
        """Raise HydromelError unless the option `where` names a figure of a metric, or none."""
        if figure is not None and figure not in self.scales:
            raise HydromelError(
                f"{where}={figure}: no metric of this run has such a figure{did_you_mean(figure, self.scales)} "
                f"Figures: {', '.join(sorted(self.scales))}"
            )

    def metric_of(self, figure: str, vocabs: Mapping[str, Vocab]) -> Metric:
        """Return a new measurement by the metric that has this figure."""
        return started(next(metric for metric in self.metrics if figure in metric.scales), vocabs)

    def start(self, vocabs: Mapping[str, Vocab]) -> Measures:
        """Return a new, empty measurement."""
        return Measures(tuple(started(metric, vocabs) for metric in self.metrics), self.main, vocabs["target"].known)

    def update(self, values: Mapping[InputKind, Tensor | Ragged], batch: Batch) -> None:
        """Add one batch, given a value per target or per row; metrics receive only targets that count."""
        for metric in self.metrics:
            metric.update(*scored(values[metric.input_kind], batch, metric.input_kind, self.n_targets))

    def compute(self) -> dict[str, object]:
        """Return the figures and tables of all metrics."""
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}

    def of_split(
        self, values: Mapping[InputKind, Tensor | Ragged], split: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, object]:
        """Return the figures and tables of a whole split, by the metrics whose input is among `values`."""
        known = tuple(metric for metric in self.metrics if metric.input_kind in values)
        measurement = Measures(known, self.main).start(vocabs)
        measurement.update(values, split)
        return measurement.compute()


def scored(values: Tensor | Ragged, batch: Batch, kind: InputKind, n_targets: int) -> tuple[Tensor, Batch]:
    """Return the input of a metric for the targets that count, and the batch with these (`runner.ragged.scored`)."""
    if kind == "losses":
        return scored_losses(values, batch, n_targets)
    return scored_predictions(values.tokens() if isinstance(values, Ragged) else values, batch)


def started(metric: Metric, vocabs: Mapping[str, Vocab]) -> Metric:
    """Return a new, empty measurement by `metric`, which does not change."""
    measurement = copy.copy(metric)
    measurement.start(vocabs)
    return measurement
