"""The base of a run: the weights of a pretrained model, which a run that trains none of them does not keep.

Its checkpoints have the hash of the base (`runner.interfaces.HasBaseWeights`), and its folder says so in a file. Loaded
again, the base comes from where the run found it, and must have this hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.common.records import parse
from runner.embeddings.pretrained_transformer.files import PretrainedFiles, find_files
from runner.embeddings.pretrained_transformer.load import Loaded

FOLDER = "pretrained"  # folder in a run's folder with the model's configuration and tokenizer
_BASE, _HASH = "base.json", "sha256"
_RECORD = TypeAdapter(dict[str, str])
_ADAPTER, _WITHIN_ADAPTER = ".lora_", ".base_layer"  # in names of peft


class BaseWeights:
    """The base's tensors in a module: all of some parts but their adapters."""

    def __init__(self, module: nn.Module, parts: tuple[str, ...]) -> None:
        self._module, self._parts = module, parts
        self._hash: str | None = None

    def names(self) -> set[str]:
        """Return their names in the module."""
        return {*self._tensors()}

    def hash(self, is_fixed: bool) -> str:
        """Return their hash; with `is_fixed` they do not change any more, so it is computed once."""
        if self._hash is None or not is_fixed:
            plain = {name.replace(_WITHIN_ADAPTER, ""): tensor for name, tensor in self._tensors().items()}
            self._hash = hash_of(plain)
        return self._hash

    def _tensors(self) -> dict[str, Tensor]:
        state = self._module.state_dict()
        return {name: state[name] for name in state if name.startswith(self._parts) and _ADAPTER not in name}


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors and their names; numbers count as those in float32, in which weights are loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def saved_or_new(files: Path | None, path: str, revision: str | None, data_dir: str | None) -> PretrainedFiles:
    """Return the files of a new run's model or, given the folder of a saved run, of that run's.

    The weights of a saved run are in its checkpoint, unless it has not kept its base.

    Raises:
        HydromelError: the model, or the base of a saved run, cannot be found.
    """
    if files is None:
        return find_files(path, revision, data_dir)
    saved = PretrainedFiles(files / FOLDER, path, weights=None)
    if not (saved.folder / _BASE).is_file():
        return saved
    try:
        return replace(saved, weights=find_files(path, revision, data_dir).folder)
    except HydromelError as error:
        raise HydromelError(
            f"{error}; the run trained adapters or what stands on top of this model and has not kept the model itself, "
            "so put it there (with embedding.save_base=true a run keeps it)"
        ) from error


def keeps_base(
    files: Path | None, source: PretrainedFiles, base: BaseWeights, is_fixed: bool, save_base: bool, loaded: Loaded
) -> bool:
    """Return whether checkpoints have the base's tensors too, for a model that was just loaded.

    Args:
        files: folder with the files of a saved run; None: a new run.
        is_fixed: no tensor of the base is trained.
        save_base: the user wants them in checkpoints.

    Raises:
        HydromelError: the base of a saved run is not the one that it had.
    """
    if source.weights is None:
        return True  # they are in the checkpoint that is about to be loaded
    if files is None:
        # what the file lacks was drawn at random, so it cannot be read again
        return save_base or not is_fixed or bool(loaded.not_fitting.get("missing"))
    path = files / FOLDER / _BASE
    if parse(_RECORD, read_bytes(path), str(path)).get(_HASH) != base.hash(is_fixed=True):
        raise HydromelError(
            f"embedding.path={source.source}: {source.weights} has other weights than the model that the run started "
            f"from ({path}); restore them, or give embedding.revision"
        )
    return False


def write_base(target: Path, hash_if_left_out: str | None) -> None:
    """Write to a run's folder whether its base is elsewhere: then with its hash."""
    if hash_if_left_out is None:
        (target / _BASE).unlink(missing_ok=True)
    else:
        write_text(target / _BASE, json.dumps({_HASH: hash_if_left_out}))
