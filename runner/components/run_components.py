"""All objects of a run, and functions that build only the batching strategy or the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch.optim import Optimizer

from runner.common.errors import HydromelError
from runner.components.found_options import completed
from runner.components.model_parts import ModelParts
from runner.config.instantiate import Factory, build
from runner.config.schema import Node, RunConfig
from runner.interfaces import BatchingStrategy, Schedule, StrategyChooser, Task
from runner.tracking.tracker import Tracker


class Plots(Protocol):
    """An object that draws the plots of a finished run or of a search."""

    def draw(self, folder: Path) -> None:
        """Draw plots of the records in `folder`."""
        ...


@dataclass(frozen=True)
class Components:
    """All objects of a run."""

    config: RunConfig  # with the values of the options that the training set decides
    parts: ModelParts
    batching: BatchingStrategy | StrategyChooser
    optimizer: Factory[Optimizer]  # built once it is given `params`
    schedule: Factory[Schedule]  # built once it is given `total_updates` and `updates_per_epoch`
    tracker: Tracker  # destination of records besides the run's folder
    plots: Plots | None  # plots of the finished run

    @classmethod
    def of(cls, config: RunConfig) -> Components:
        """Build the objects that do not need data, and check the others.

        Raises:
            HydromelError: as `ModelParts.of`, or as `completed`.
        """
        built = cls.before_data(config)
        config, parts = completed(config, built.parts, config.plugins)
        parts.measures.check(config.train.metric, "train.metric")
        return replace(built, config=config, parts=parts)

    @classmethod
    def before_data(cls, config: RunConfig) -> Components:
        """Return the objects that `of` builds before it may read data; raises as `ModelParts.of`."""
        plugins = config.plugins
        parts = ModelParts.of(config, plugins)
        batching = build_batching(config.batching, plugins)
        check_fit(parts.task, batching, config.max_length)
        check_limits(config)
        optimizer = optimizer_factory(config)
        schedule = Factory[Schedule].of(config.schedule, "schedule", plugins, Schedule)
        tracker: Tracker = build(config.tracker, "tracker", {}, plugins, Tracker)
        plots = None if config.run_plots is None else build(config.run_plots, "run_plots", {}, plugins, Plots)
        return cls(config, parts, batching, optimizer, schedule, tracker, plots)


def build_batching(node: Node, plugins: Sequence[str]) -> BatchingStrategy | StrategyChooser:
    """Return the batching strategy of a node, or a chooser of strategies; raise if its class lacks a method."""
    batching: object = build(node, "batching", {}, plugins)
    if not isinstance(batching, BatchingStrategy | StrategyChooser):
        raise HydromelError(
            f"batching: {type(batching).__name__} lacks a method of BatchingStrategy in runner/interfaces.py; "
            "use _target_: runner.batching.strategy.Batching with a plan, or a class with all of its methods"
        )
    return batching


def check_fit(task: Task, batching: BatchingStrategy | StrategyChooser, max_length: int | None) -> None:
    """Raise HydromelError if only one of task and strategy reads a single text, or if `max_length` cuts that text."""
    one_text = task.carries_state
    if one_text != batching.carries_state:
        reads = "one text" if one_text else "independent rows"
        raise HydromelError(
            f"task.unit=stream and batching=stream go together; got task={task.name} ({reads}) and "
            f"batching={batching.name}"
        )
    if one_text and max_length is not None:
        raise HydromelError(f"max_length={max_length} cuts rows, and a stream has only one; use max_length=null")


def check_limits(config: RunConfig) -> None:
    """Raise HydromelError if two options limit updates, or if an experiment sets one that the strategy decides."""
    rows, tokens = "batching.batch_size", "batching.plan.max_tokens"
    if {rows, tokens} <= {*config.given}:
        raise HydromelError(f"{tokens} limits updates, so {rows} has no effect; give one of them")
    chosen, at_once = config.choices.get("batching"), config.batching.get("micro_batch")
    if chosen == "size1" and at_once != 1:
        raise HydromelError(
            f"batching=size1 computes one row at a time, but batching.micro_batch={at_once}; give "
            "batching.micro_batch=1, or batching=packed"
        )


def build_strategy(
    node: Node,
    plugins: Sequence[str],
    unchosen: str = "batching=auto only chooses among the other strategies; name one of them, such as batching=packed",
) -> BatchingStrategy:
    """Return the batching strategy of a node; raises HydromelError, with the message `unchosen`, for a chooser."""
    batching = build_batching(node, plugins)
    if isinstance(batching, StrategyChooser):
        raise HydromelError(unchosen)
    return batching


def with_batch_size(node: Node, batch_size: int | None) -> Node:
    """Return the node of a strategy with another batch size, in its plan too."""
    plan = node.get("plan")
    of_plan = {"plan": {**plan, "batch_size": batch_size}} if isinstance(plan, dict) else {}
    return {**node, "batch_size": batch_size, **of_plan}


def optimizer_factory(config: RunConfig) -> Factory[Optimizer]:
    """Return the configured optimiser, which waits for `params`."""
    return Factory[Optimizer].of(config.optimizer, "optimizer", config.plugins, Optimizer)
