"""What `batching=auto` does before training: it probes, chooses, says so, and fixes the choice in the run's folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from runner.advisor.advisor import advise, sentence, settled
from runner.advisor.memory_estimate import MemoryEstimate
from runner.advisor.speed_probe import Probe
from runner.batching.auto import Auto
from runner.data.numericalize import Data
from runner.interfaces import Task
from runner.model import Model, device_of
from runner.tracking.run_folder import RunFolder
from runner.training.checkpoint import checkpoint_path

Config = dict[str, Any]
OptimizerOf = Callable[[Config, Model], torch.optim.Optimizer]


def settle(
    config: Config,
    auto: Auto,
    run: RunFolder,
    model: Model,
    task: Task,
    data: Data,
    optimizer_of: OptimizerOf,
    say: Callable[[str], None],
) -> Config:
    """The config with what `auto` chooses; a run that has been trained already keeps what it chose.

    A copy of the model is spent, so that the run is what it would have been without.
    """
    advice = run.run.get("advice")
    if advice is None or not checkpoint_path(run.path, "last").exists():
        device = device_of(model)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            advice = _advice(config, auto, model, task, data, optimizer_of)
        run.note("advice", advice)
    say(sentence(advice))
    return settled(config, advice)


def _advice(
    config: Config, auto: Auto, model: Model, task: Task, data: Data, optimizer_of: OptimizerOf
) -> dict[str, Any]:
    device, copied = device_of(model), copy.deepcopy(model).cpu()
    train, *others = (data.splits[name].to(device) for name in sorted(data.splits, key="train".__ne__))
    estimate = memory_estimate(config, task, data, copied, optimizer_of)
    return advise(
        auto,
        train,
        others,
        config["seed"],
        estimate,
        lambda: probe_of(config, task, copied.to(device), optimizer_of),
    )


def probe_of(config: Config, task: Task, model: Model, optimizer_of: OptimizerOf) -> Probe:
    """For this model, which is spent by it."""
    clip_norm, bf16 = config["train"]["clip_norm"], config["precision"] == "bf16"
    return Probe(model, task, optimizer_of(config, model), clip_norm, bf16)


def memory_estimate(config: Config, task: Task, data: Data, model: Model, optimizer_of: OptimizerOf) -> MemoryEstimate:
    """For this model, which lies on the CPU and is spent by it."""
    return MemoryEstimate(
        model,
        task,
        metric=lambda: task.metric(data.vocabs),
        optimizer=optimizer_of(config, model),
        bf16=config["precision"] == "bf16",
        eval_batch_size=config["train"]["eval_batch_size"],
    )
