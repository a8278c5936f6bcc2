"""All that a resumed run needs besides the parameters: out of a training, and into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from runner import names
from runner.accounting import Account
from runner.batching.loader import Batching
from runner.state import moved
from runner.training import Progress, Training


def checkpoint_path(folder: Path, name: str) -> Path:
    return folder / names.CHECKPOINTS / f"{name}.safetensors"


def snapshot(t: Training) -> dict[str, Any]:
    """All that a resumed run needs besides the parameters."""
    cuda = t.clock.device.type == "cuda"
    return {
        "optimizer": t.optimizer.state_dict(),
        "schedule": t.schedule.state(),
        "progress": asdict(t.progress) | {"carried": t.progress.carried},
        "account": t.account.state(),
        "seconds": t.clock.seconds | {"total": t.clock.total()},
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(t.clock.device) if cuda else None,
    }


def restore(t: Training, state: Mapping[str, Any]) -> None:
    """Take training up where a checkpoint left it; options of the optimiser are those of the config, not the file's."""
    options = [{key: value for key, value in group.items() if key != "params"} for group in t.optimizer.param_groups]
    t.optimizer.load_state_dict(state["optimizer"])
    for group, configured in zip(t.optimizer.param_groups, options, strict=True):
        group.update(configured)
    t.schedule.restore(state["schedule"])
    t.progress = Progress(**state["progress"])
    t.progress.carried = moved(t.progress.carried, t.clock.device)
    if t.progress.micro_batch is not None and isinstance(t.batching, Batching):
        t.batching = replace(t.batching, micro_batch=t.progress.micro_batch)
    if t.progress.eval_batch_size is not None:
        t.settings = replace(t.settings, eval_batch_size=t.progress.eval_batch_size)
    t.account = Account.of(state["account"])
    t.clock.seconds.update(state["seconds"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None and t.clock.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], t.clock.device)
