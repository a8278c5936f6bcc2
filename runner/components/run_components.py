"""Everything that a run is made of, and the batching strategy or the optimiser by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch.optim import Optimizer

from runner.batching.auto import Auto
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.components.model_parts import ModelParts
from runner.config.instantiate import Factory, build
from runner.config.schema import Node, RunConfig
from runner.interfaces import Schedule
from runner.tracking.tracker import Tracker


class Plots(Protocol):
    """Pictures of a finished run, or of a search."""

    def draw(self, folder: Path) -> None:
        """Draw what the records in `folder` hold."""
        ...


@dataclass(frozen=True)
class Components:
    """Everything that a run is made of.

    Attributes:
        parts: of the model, and of its data.
        batching: the strategy, or what chooses one.
        optimizer: waits for `params`.
        schedule: waits for `total_updates` and `updates_per_epoch`.
        tracker: where records go besides the run's folder.
        plots: drawn of the finished run; None: none.
    """

    parts: ModelParts
    batching: Batching | Stream | Auto
    optimizer: Factory[Optimizer]
    schedule: Factory[Schedule]
    tracker: Tracker
    plots: Plots | None

    @classmethod
    def of(cls, config: RunConfig) -> Components:
        """Build what can be built without data, and check the rest; errors are those of `ModelParts.of`."""
        plugins = config.plugins
        return cls(
            tracker=build(config.tracker, "tracker", {}, plugins),
            plots=None if config.run_plots is None else build(config.run_plots, "run_plots", {}, plugins),
            batching=build_batching(config.batching, plugins),
            parts=ModelParts.of(config, plugins),
            optimizer=optimizer_factory(config),
            schedule=Factory[Schedule].of(config.schedule, "schedule", plugins),
        )


def build_batching(node: Node, plugins: Sequence[str]) -> Batching | Stream | Auto:
    """Return the batching strategy of a node, which commands also build by itself: one config, several strategies.

    Raises:
        HydromelError: as `ModelParts.of`.
    """
    batching: Batching | Stream | Auto = build(node, "batching", {}, plugins)
    return batching


def optimizer_factory(config: RunConfig) -> Factory[Optimizer]:
    """Return the configured optimiser, which waits for `params`."""
    return Factory[Optimizer].of(config.optimizer, "optimizer", config.plugins)
