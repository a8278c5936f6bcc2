"""The choice of `batching=auto` before training: probe, choose, report, and record the choice in the run's folder."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch

from runner.advisor.advisor import advise, sentence, with_chosen_strategy
from runner.advisor.memory_estimate import MemoryEstimate
from runner.advisor.speed_probe import Probe
from runner.common.records import AdviceRecord
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
    """Return the config with what `auto` chooses; a run that has been trained already keeps what it chose.

    A copy of the model is spent, so that the run is what it would have been without.
    """
    advice = run.run.get("advice")
    if advice is None or not checkpoint_path(run.path, "last").exists():
        device = device_of(model)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            advice = _advice(config, components, auto, model, data)
        run.set_advice(advice)
    log.info(sentence(advice))
    return with_chosen_strategy(config, advice)


def _advice(config: RunConfig, components: Components, auto: StrategyChooser, model: Model, data: Data) -> AdviceRecord:
    device, copied, task = device_of(model), copy.deepcopy(model).cpu(), components.parts.task
    train, *others = (data.splits[name].to(device) for name in sorted(data.splits, key="train".__ne__))
    training = TrainingCost(components.optimizer, config.train, config.bf16)
    estimate = training.memory_estimate(task, data, copied)
    return advise(auto, train, others, config.seed, estimate, lambda: training.probe(task, copied.to(device)))


@dataclass(frozen=True)
class TrainingCost:
    """The settings besides the model and its batches on which the cost of training depends.

    Attributes:
        optimizer: waits for the parameters.
        settings: gradient clipping and the rows of an evaluation batch count here.
        bf16: whether arithmetic is in bfloat16.
    """

    optimizer: Factory[torch.optim.Optimizer]
    settings: TrainSettings
    bf16: bool

    def probe(self, task: Task, model: Model) -> Probe:
        """Return a probe of this model, which is spent by it."""
        return Probe(model, task, build_optimizer(self.optimizer, model), self.settings.clip_norm, self.bf16)

    def memory_estimate(self, task: Task, data: Data, model: Model) -> MemoryEstimate:
        """Return an estimate for this model, which lies on the CPU and is spent by it."""
        return MemoryEstimate(
            model,
            task,
            metric=lambda: task.metric(data.vocabs),
            optimizer=build_optimizer(self.optimizer, model),
            bf16=self.bf16,
            eval_batch_size=self.settings.eval_batch_size,
        )
