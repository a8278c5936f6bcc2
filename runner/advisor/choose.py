"""The choice of `batching=auto` before training: probe, choose, report, and record the choice in the run's folder."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch

from runner.advisor.advisor import advise, describe_advice, with_chosen_strategy
from runner.advisor.memory_estimate import MemoryEstimator
from runner.advisor.speed_probe import SpeedProbe
from runner.common.records import AdviceRecord
from runner.components.measures import Measures
from runner.components.run_components import Components
from runner.config.instantiate import Factory
from runner.config.schema import RunConfig, TrainSettings
from runner.data.numericalize import Data
from runner.interfaces import StrategyChooser, Task
from runner.model import Model, device_of
from runner.tracking.run_folder import RunFolder
from runner.training.checkpoint import checkpoint_path
from runner.training.setup import build_optimizer

log = logging.getLogger(__name__)


def choose_strategy(
    config: RunConfig,
    components: Components,
    auto: StrategyChooser,
    run: RunFolder,
    model: Model,
    data: Data,
) -> RunConfig:
    """Return the config with the strategy that `auto` chooses; a run that has begun training keeps its choice.

    The probe trains a copy of the model and restores the random state, so that the run stays as it would be without it.
    """
    advice = run.run.get("advice")
    if advice is None or not checkpoint_path(run.path, "last").exists():
        device = device_of(model)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            advice = _advice(config, components, auto, model, data)
        run.set_advice(advice)
    log.info(describe_advice(advice))
    return with_chosen_strategy(config, advice)


def _advice(config: RunConfig, components: Components, auto: StrategyChooser, model: Model, data: Data) -> AdviceRecord:
    device, copied, task = device_of(model), copy.deepcopy(model).cpu(), components.parts.task
    train, *others = (data.splits[name].to(device) for name in sorted(data.splits, key="train".__ne__))
    cost = TrainingCost(components.optimizer, config.train, config.bf16)
    estimator = cost.memory_estimator(task, data, copied)
    return advise(auto, train, others, config.seed, estimator, lambda: cost.probe(task, copied.to(device)))


@dataclass(frozen=True)
class TrainingCost:
    """The settings on which the cost of training depends, besides the model and its batches.

    Attributes:
        optimizer: the factory of the optimiser, which waits for the parameters.
        settings: the section `train`: gradient clipping, and the rows of an evaluation batch.
        bf16: whether arithmetic is in bfloat16.
    """

    optimizer: Factory[torch.optim.Optimizer]
    settings: TrainSettings
    bf16: bool

    def probe(self, task: Task, model: Model) -> SpeedProbe:
        """Return a probe of speed, which trains this model."""
        return SpeedProbe(model, task, build_optimizer(self.optimizer, model), self.settings.clip_norm, self.bf16)

    def memory_estimator(self, task: Task, data: Data, model: Model) -> MemoryEstimator:
        """Return an estimator of memory, which trains this model; it is on the CPU."""
        return MemoryEstimator(
            model,
            task,
            metric=lambda: Measures.of(task).start(data.vocabs),
            optimizer=build_optimizer(self.optimizer, model),
            bf16=self.bf16,
            eval_batch_size=self.settings.eval_batch_size,
        )
