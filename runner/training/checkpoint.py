"""Checkpoints: one safetensors file, written atomically. Opening one runs no code, since nothing is pickled.

Tensors are stored by path (`model.encoder.layers.0.weight`); everything else is JSON in the file's metadata, beside a
checksum of all of it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.optimizer import StateDict
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import write_bytes
from runner.encoders.carried_state import concatenate_states, move_state, select_state
from runner.interfaces import START, HasBaseWeights, State
from runner.profiling.accounting import CostCounters
from runner.training.state import Origin, Progress, Training


@with_config(ConfigDict(strict=True, arbitrary_types_allowed=True))
class CheckpointState(TypedDict):
    """The state of a run without its parameters, as stored in the checkpoint `last`."""

    optimizer: StateDict
    schedule: StateDict
    progress: StateDict  # the fields of `Progress`
    origin: StateDict  # the fields of `Origin`
    account: StateDict  # the fields of `CostCounters`
    seconds: dict[str, float]  # by phase, and in total
    rng: Tensor  # the state of torch's generator on the CPU
    cuda_rng: Tensor | None  # the same on the GPU


_META, _BASES, _CHECKSUM = "hydromel", "bases", "crc32"
_TENSOR, _ARRAY = "__tensor__", "__array__"
_STATE, _PROGRESS = TypeAdapter(CheckpointState), TypeAdapter(Progress)
_ORIGIN, _COSTS = TypeAdapter(Origin), TypeAdapter(CostCounters)
_SHOWN = 80  # most characters of the reason in an error message


def save_checkpoint(path: Path, model: nn.Module, state: Mapping[str, object]) -> None:
    """Write the model's parameters and buffers (tied ones once), and dicts, lists and tuples of tensors and JSON.

    Of parts that leave out their base (`runner.interfaces.HasBaseWeights`) the hash is written instead.

    Raises:
        HydromelError: a parameter or buffer has NaN or infinities, or the file cannot be written; the old file is kept.
    """
    parts = {prefix: part for prefix, part in _parts_with_base(model).items() if not part.keeps_base}
    bases = {prefix: part.base_hash() for prefix, part in parts.items()}
    left_out = _base_names(parts)
    tensors = {
        f"model.{name}": tensor.detach() for name, tensor in _named_tensors(model).items() if name not in left_out
    }
    meta, base = json.dumps(_take_tensors(state, "state", tensors)), json.dumps(bases) if bases else ""
    contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    _check_finite(path, contiguous)
    metadata = {_META: meta, _CHECKSUM: _checksum(contiguous, meta + base)} | ({_BASES: base} if base else {})
    write_bytes(path, save(contiguous, metadata))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    tensors: dict[str, Tensor]  # path within the checkpoint -> tensor
    state: Any  # as `save_checkpoint` was given it
    bases: dict[str, str] = field(default_factory=dict)  # hash of the base that the file lacks, by the part's name

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a checkpoint; raise a HydromelError if it is missing or damaged, or has NaN or infinities."""
        if not path.is_file():
            raise HydromelError(f"{path}: there is no checkpoint")
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                metadata = file.metadata() or {}
            meta, base, checksum = metadata[_META], metadata.get(_BASES, ""), metadata.get(_CHECKSUM)
            state = _put_tensors(json.loads(meta), tensors)
            bases = dict(json.loads(base)) if base else {}
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise HydromelError(f"{path}: not a checkpoint, or a damaged one ({_shown(error)})") from error
        if checksum is None:
            raise HydromelError(f"{path}: an earlier version wrote this checkpoint, without a checksum; train again")
        if checksum != _checksum(tensors, meta + base):
            raise HydromelError(f"{path}: damaged, its content does not match its checksum; restore a copy of it")
        _check_finite(path, tensors)
        return cls(path, tensors, state, bases)

    @property
    def progress(self) -> Progress:
        """The position of the run. Raises HydromelError if the state has another form."""
        with self.state_errors():
            return _PROGRESS.validate_python(Progress(**self.state["progress"]))

    @property
    def origin(self) -> Origin:
        """The config, data and vocabularies of the run. Raises HydromelError if the state has another form."""
        with self.state_errors():
            return _ORIGIN.validate_python(Origin(**self.state["origin"]))

    @contextlib.contextmanager
    def state_errors(self) -> Iterator[None]:
        """Within the context, turn errors caused by a state of the wrong form into a HydromelError of one line."""
        try:
            yield
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            reason = _shown(error)
        else:
            return
        raise HydromelError(f"{self.path}: its state does not fit this run ({reason})")

    def fill(self, model: nn.Module, leave_out: str = "") -> None:
        """Copy the parameters into `model`, except those whose names start with `leave_out`.

        Parts whose base the file lacks keep the one that they have, which must be the same.

        Raises HydromelError if they do not fit the model.
        """
        parts = _parts_with_base(model)
        for prefix, expected in self.bases.items():
            if prefix not in parts or parts[prefix].base_hash() != expected:
                raise HydromelError(
                    f"{self.path} lacks the weights of {prefix} that were not trained, and this model has others; give "
                    "the same pretrained model"
                )
        from_elsewhere = {prefix: parts[prefix] for prefix in self.bases}
        _fill(self.path, model, self.tensors, leave_out, _base_names(from_elsewhere))
        for prefix, part in parts.items():
            if prefix not in self.bases:
                part.keeps_base = True  # it is that of this file now


def load_checkpoint(path: Path, model: nn.Module) -> Any:
    """Copy a checkpoint's parameters into `model`, and return the state that `save_checkpoint` was given.

    Raises a HydromelError if the file is missing or damaged, or does not fit the model.
    """
    checkpoint = Checkpoint.read(path)
    checkpoint.fill(model)
    return checkpoint.state


def _checksum(tensors: Mapping[str, Tensor], meta: str) -> str:
    """Return a CRC-32 of the metadata and of the names, types, shapes and values of contiguous tensors on the host.

    It detects damage, even a single flipped bit, at half the cost of a cryptographic hash. It does not prove who wrote
    the file.
    """
    crc = zlib.crc32(meta.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.startswith("model.") and not is_finite(tensor):
            raise HydromelError(f"{path}: {name.removeprefix('model.')} has NaN or infinities")


def is_finite(tensor: Tensor) -> bool:
    """Return True if a tensor has neither NaN nor infinities."""
    # If the sum is finite, so are all values; it takes a twelfth of the time. A sum of large values may overflow, so
    # only then each value is checked.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _shown(error: Exception) -> str:
    """Return the type and the text of an error in one short line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and the persistent buffers; other buffers are computed from the data again."""
    kept = model.state_dict().keys()
    return dict(model.named_parameters()) | {name: value for name, value in model.named_buffers() if name in kept}


def _parts_with_base(model: nn.Module) -> dict[str, HasBaseWeights]:
    """Return the parts of a model that start from a base, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HasBaseWeights)}


def _base_names(parts: Mapping[str, HasBaseWeights]) -> Set[str]:
    """Return the names in the whole model of the tensors of these parts' bases."""
    return {f"{prefix}.{name}" if prefix else name for prefix, part in parts.items() for name in part.base_names()}


def _fill(path: Path, model: nn.Module, tensors: dict[str, Tensor], leave_out: str, from_elsewhere: Set[str]) -> None:
    """Copy the tensors of a file into the model, once the names and shapes of all were compared."""
    own = {name: value for name, value in _named_tensors(model).items() if name not in from_elsewhere}
    saved = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if leave_out:
        own, saved = (
            {name: value for name, value in named.items() if not name.startswith(leave_out)} for named in (own, saved)
        )
    for name in sorted(own.keys() | saved.keys()):
        expected = tuple(own[name].shape) if name in own else "absent"
        got = tuple(saved[name].shape) if name in saved else "absent"
        if expected != got:
            raise HydromelError(
                f"{path} does not fit this config: {name} is {got} in the file, {expected} in the model"
            )
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


def write_best(t: Training) -> None:
    """Write the checkpoint `best` of a run: the parameters, and the position at which they were reached.

    No run goes on from it, so it has no state of the optimiser, which for Adam is twice the size of the parameters.
    """
    if t.ranks.is_first:
        save_checkpoint(
            checkpoint_path(t.run.path, "best"), t.model, {"progress": vars(t.progress) | {"carried": START}}
        )


def write_last(t: Training) -> None:
    """Write the checkpoint `last` of a run: the parameters, and everything else that a resumed run needs.

    It does not depend on the number of ranks: the first one writes it, with the shards and the state of the streams of
    all. So all must call this.
    """
    progress = {**vars(t.progress)}
    if t.batching.carries_state and t.ranks.world > 1:
        own = move_state(t.progress.carried, torch.device("cpu"))
        progress["carried"] = concatenate_states(t.ranks.gathered(own) or [own])
    optimizer = t.optimizer.state_dict() if t.shards is None else t.shards.whole_state(t.optimizer)
    cuda = t.clock.device.type == "cuda"
    state: CheckpointState = {
        "optimizer": optimizer,
        "schedule": t.schedule.state(),
        "progress": progress,
        "origin": {**vars(t.origin)},
        "account": t.costs.state(),
        "seconds": t.clock.seconds | {"total": t.clock.total()},
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(t.clock.device) if cuda else None,
    }
    with t.whole() as whole:
        if t.ranks.is_first:
            save_checkpoint(checkpoint_path(t.run.path, "last"), whole.model, state)


def _own_streams(t: Training, carried: State) -> State:
    """Return the part of a stream's state that belongs to the streams of this rank."""
    if t.ranks.world == 1 or not t.strategy.carries_state:
        return carried
    return select_state(carried, t.own_rows(np.arange(t.strategy.batch_size or 0)))


def resume(t: Training, checkpoint: Checkpoint) -> Training:
    """Return the training, which already has a checkpoint's parameters, at the point where the checkpoint left it.

    Raises:
        HydromelError: a part of the state is missing or has the wrong type, or is of another optimiser.
    """
    progress = checkpoint.progress
    with checkpoint.state_errors():
        state = _STATE.validate_python(checkpoint.state)
        costs = CostCounters.of(state["account"])
        _COSTS.validate_python(costs)
        own = state["optimizer"] if t.shards is None else t.shards.own_state(state["optimizer"], t.optimizer)
        t.optimizer.load_state_dict(own)
        t.schedule.restore(state["schedule"])
        progress.carried = move_state(_own_streams(t, progress.carried), t.clock.device)
        t.clock.seconds.update(state["seconds"])
        # Building the model and the optimiser drew random numbers; now the sequence of the checkpoint continues.
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and t.clock.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], t.clock.device)
    return replace(t, progress=progress, costs=costs)
