"""Checkpoints: one safetensors file, written atomically. Opening one runs no code, since nothing is pickled.

Tensors are stored by path (`model.encoder.layers.0.weight`); everything else is JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.optimizer import StateDict

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import write_bytes
from runner.encoders.carried_state import move_state
from runner.profiling.accounting import CostCounters
from runner.training.state import Origin, Progress, Training


class CheckpointState(TypedDict):
    """The state of a run without its parameters, as stored in a checkpoint."""

    optimizer: StateDict
    schedule: StateDict
    progress: StateDict  # the fields of `Progress`
    origin: StateDict  # the fields of `Origin`
    account: StateDict  # the fields of `CostCounters`
    seconds: dict[str, float]  # by phase, and in total
    rng: Tensor  # the state of torch's generator on the CPU
    cuda_rng: Tensor | None  # the same on the GPU


_META = "hydromel"
_TENSOR, _ARRAY = "__tensor__", "__array__"


def save_checkpoint(path: Path, model: nn.Module, state: Mapping[str, object]) -> None:
    """Write the model's parameters and buffers (tied ones once), and dicts, lists and tuples of tensors and JSON."""
    tensors = {f"model.{name}": tensor.detach() for name, tensor in _named_tensors(model).items()}
    meta = _take_tensors(state, "state", tensors)
    contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, {_META: json.dumps(meta)}))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    tensors: dict[str, Tensor]  # by path
    state: Any  # as `save_checkpoint` was given it

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a checkpoint; raise a HydromelError if it is missing or damaged."""
        if not path.is_file():
            raise HydromelError(f"{path}: there is no checkpoint")
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                meta = json.loads((file.metadata() or {})[_META])
        except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
            raise HydromelError(f"{path}: not a checkpoint, or a damaged one ({error})") from error
        return cls(path, tensors, _put_tensors(meta, tensors))

    @property
    def progress(self) -> Progress:
        """The position of the run."""
        return Progress(**self.state["progress"])

    @property
    def origin(self) -> Origin:
        """What the run was trained on and with. Raises HydromelError if an earlier version wrote the checkpoint."""
        if "origin" not in self.state:
            raise HydromelError(
                f"{self.path}: an earlier version wrote this checkpoint, which does not say what it was trained on; "
                f"start a new run with its parameters: init_from={self.path.parents[1]}"
            )
        return Origin(**self.state["origin"])

    def fill(self, model: nn.Module, leave_out: str = "") -> None:
        """Copy the parameters into `model`, except those whose names start with `leave_out`.

        Raises HydromelError if they do not fit the model.
        """
        _fill(self.path, model, self.tensors, leave_out)


def load_checkpoint(path: Path, model: nn.Module) -> Any:
    """Copy a checkpoint's parameters into `model`, and return its state as `save_checkpoint` was given it.

    Raises a HydromelError if the file is missing or damaged, or does not fit the model.
    """
    checkpoint = Checkpoint.read(path)
    checkpoint.fill(model)
    return checkpoint.state


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and the persistent buffers; other buffers are computed from the data again."""
    kept = model.state_dict().keys()
    return dict(model.named_parameters()) | {name: value for name, value in model.named_buffers() if name in kept}


def _fill(path: Path, model: nn.Module, tensors: dict[str, Tensor], leave_out: str) -> None:
    """Copy the tensors of a file into the model, once the names and shapes of all were compared."""
    own = _named_tensors(model)
    saved = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if leave_out:
        own, saved = (
            {name: value for name, value in named.items() if not name.startswith(leave_out)} for named in (own, saved)
        )
    for name in sorted(own.keys() | saved.keys()):
        expected = tuple(own[name].shape) if name in own else "nothing"
        got = tuple(saved[name].shape) if name in saved else "nothing"
        if expected != got:
            raise HydromelError(f"{path} does not fit this config: {name} is {got} there, the model has {expected}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def _take_tensors(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """Return `value` as JSON, with its tensors and arrays replaced by their paths and added to `tensors`."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().clone()
        return {_TENSOR: path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(value.copy())
        return {_ARRAY: path}
    if isinstance(value, dict):
        pairs = [[key, _take_tensors(item, f"{path}.{key}", tensors)] for key, item in value.items()]
        return {"__dict__": pairs}  # pairs, since JSON would turn integer keys into strings
    if isinstance(value, list | tuple):
        items = [_take_tensors(item, f"{path}.{place}", tensors) for place, item in enumerate(value)]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    return value


def _put_tensors(value: object, tensors: dict[str, Tensor]) -> Any:
    """Return the inverse of `_take_tensors`."""
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _ARRAY in value:
        return tensors[value[_ARRAY]].numpy()
    if "__tuple__" in value:
        return tuple(_put_tensors(item, tensors) for item in value["__tuple__"])
    return {key: _put_tensors(item, tensors) for key, item in value["__dict__"]}


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return the path of the checkpoint `name` (`best` or `last`) of a run."""
    return folder / run_schema.CHECKPOINTS / f"{name}.safetensors"


def write_checkpoint(t: Training, name: str) -> None:
    """Write the checkpoint `name` of a run: the parameters, and everything else that a resumed run needs."""
    cuda = t.clock.device.type == "cuda"
    state: CheckpointState = {
        "optimizer": t.optimizer.state_dict(),
        "schedule": t.schedule.state(),
        "progress": {**vars(t.progress)},
        "origin": {**vars(t.origin)},
        "account": t.costs.state(),
        "seconds": t.clock.seconds | {"total": t.clock.total()},
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(t.clock.device) if cuda else None,
    }
    save_checkpoint(checkpoint_path(t.run.path, name), t.model, state)


def resume(t: Training, state: CheckpointState) -> Training:
    """Return the training, which already has a checkpoint's parameters, at the point where the checkpoint left it."""
    t.optimizer.load_state_dict(state["optimizer"])
    t.schedule.restore(state["schedule"])
    progress = Progress(**state["progress"])
    progress.carried = move_state(progress.carried, t.clock.device)
    t.clock.seconds.update(state["seconds"])
    # Building the model and the optimiser drew random numbers; from here on the sequence of the checkpoint continues.
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None and t.clock.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], t.clock.device)
    return replace(t, progress=progress, costs=CostCounters.of(state["account"]))
