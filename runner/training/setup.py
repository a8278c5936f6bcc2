"""What training needs besides the model and the data: device, optimiser and schedule, as the config has them."""

from __future__ import annotations

from typing import Any

import torch

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.config.schema import Settings
from runner.training.optimizers import parameters_by_rate
from runner.training.schedules import Schedule

Config = dict[str, Any]


def build_optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The configured one, with a group for each rate of learning; the schedule multiplies a group's `initial_lr`."""
    parameters = {"params": parameters_by_rate(model)}
    optimizer: torch.optim.Optimizer = build(config["optimizer"], "optimizer", parameters, config["plugins"])
    for group in optimizer.param_groups:
        group["lr"] *= group["rate"]
        group["initial_lr"] = group["lr"]
    return optimizer


def build_schedule(config: Config, settings: Settings, updates_per_epoch: int) -> Schedule:
    """The configured one, told how long training may last."""
    total = updates_per_epoch * settings.epochs
    counts = {"total_updates": min(total, settings.max_updates or total), "updates_per_epoch": updates_per_epoch}
    schedule: Schedule = build(config["schedule"], "schedule", counts, config["plugins"])
    return schedule


def choose_device(config: Config) -> torch.device:
    """The configured device.

    Raises:
        HydromelError: cuda where there is none, or an arithmetic that does not fit.
    """
    wanted = config["device"]
    if wanted == "cuda" and not torch.cuda.is_available():
        raise HydromelError("device=cuda, but torch sees no GPU; use device=auto or device=cpu")
    if config["precision"] == "bf16" and config["dtype"] == "float64":
        raise HydromelError("precision=bf16 needs dtype=float32, got dtype=float64")
    cuda = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
