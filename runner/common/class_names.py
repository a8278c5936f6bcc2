"""Stable names of the classes that configs build, for everything that must survive a move of the code.

A class of this project is known by its own name (`Rnn`, not `runner.encoders.rnn.Rnn`), so hashes, the cache and saved
runs survive when its module moves. The current module of each class is read from `configs/`; nothing is listed by hand.
A class of a plugin keeps its full path, since two plugins may each have a class of that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

TARGET = "_target_"
PROJECT = ("runner.", "tasks.", "reporting.")
# present name of a class: the name by which it was first registered, which hashes and saved runs keep
RENAMED = {
    "Identity": "NoContext",
    "JoinedEmbedding": "Joined",
    "NgramEmbedding": "Ngrams",
    "PretrainedEmbedding": "Vectors",
    "WordEmbedding": "Word",
}


def stable_name(target: str) -> str:
    """Return the name by which hashes and saved runs know the class at the dotted path `target`."""
    if not target.startswith(PROJECT):
        return target
    name = target.rpartition(".")[2]
    return RENAMED.get(name, name)


def with_stable_names(value: Any) -> Any:
    """Return a copy of a config, or of a part of one, in which every `_target_` is a stable name."""
    if isinstance(value, list):
        return [with_stable_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    named = {key: with_stable_names(item) for key, item in value.items()}
    if isinstance(target := value.get(TARGET), str):
        named[TARGET] = stable_name(target)
    return named


def registered(role: str) -> Mapping[str, str]:
    """Return {stable name: dotted path} of the classes allowed under `role`, a top-level key of the config."""
    return {stable_name(path): path for path in _registered_paths().get(role, ())}


@cache
def _registered_paths() -> Mapping[str, tuple[str, ...]]:
    """Return the targets that `configs/` names under each role: the folder's name, or in train.yaml the key."""
    by_role: dict[str, set[str]] = {}
    for entry in files("configs").iterdir():
        if entry.is_dir():
            roles = [(entry.name, _load(file)) for file in entry.iterdir() if file.name.endswith(".yaml")]
        else:
            roles = list(_load(entry).items()) if entry.name.endswith(".yaml") else []
        for role, node in roles:
            by_role.setdefault(role, set()).update(targets_in(node))
    return {role: tuple(sorted(paths)) for role, paths in by_role.items()}


def _load(file: Traversable) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(file.read_text(encoding="utf-8"), loader) or {}


def targets_in(node: object) -> Iterator[str]:
    """Yield every `_target_` in `node`, at any depth."""
    if isinstance(node, Mapping):
        if TARGET in node:
            yield node[TARGET]
        for item in node.values():
            yield from targets_in(item)
    elif isinstance(node, list):
        for item in node:
            yield from targets_in(item)
