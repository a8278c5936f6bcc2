"""The objects that a config names by `_target_`, made in one place before data is read: mistakes are told at once.

Parts that need what only data or model tell (vocabularies, sizes, parameters) are factories: their options are checked
here, and they are built when the rest is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch.optim import Optimizer

from runner.batching.auto import Auto
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.common.class_names import with_stable_names
from runner.config.instantiate import Factory, build
from runner.config.schema import ModelConfig, Node, RunConfig
from runner.interfaces import Corpus, Embedding, Encoder, Schedule, Task
from runner.text.features import TokenFeature
from runner.tracking.tracker import Tracker


class Plots(Protocol):
    """Pictures of a finished run, or of a search."""

    def draw(self, folder: Path) -> None:
        """Draw what the records in `folder` hold."""
        ...


@dataclass(frozen=True)
class ModelParts:
    """What it takes to read text as a model does, and to build the model.

    Attributes:
        task: what an answer is.
        task_key: the task's options as text; targets depend on them.
        corpus: the data set; nothing of it is read yet.
        features: integer columns of each token, by name.
        embedding: waits for `vocabs`.
        encoder: waits for `input_size` and `causal`.
    """

    task: Task
    task_key: str
    corpus: Corpus
    features: dict[str, TokenFeature]
    embedding: Factory[Embedding]
    encoder: Factory[Encoder]

    @classmethod
    def of(cls, config: ModelConfig, plugins: Sequence[str]) -> ModelParts:
        """Build what can be built without data, and check the rest.

        Args:
            plugins: further module prefixes that the user allowed.

        Raises:
            HydromelError: a target that is not allowed or not there, an unknown, missing or ill-typed option.
        """
        return cls(
            task=build(config.task, "task", {}, plugins),
            task_key=json.dumps(with_stable_names(config.task), sort_keys=True),
            corpus=build(config.dataset, "dataset", {}, plugins),
            features={name: build(node, f"features.{name}", {}, plugins) for name, node in config.features.items()},
            embedding=Factory[Embedding].of(config.embedding, "embedding", plugins),
            encoder=Factory[Encoder].of(config.encoder, "encoder", plugins),
        )


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
