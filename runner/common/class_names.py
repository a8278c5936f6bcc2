"""Stable names of the classes that configs build, for everything that must survive a move of the code.

A class of this project is known by its own name (`Rnn`, not `runner.encoders.rnn.Rnn`), so hashes, the cache and saved
runs survive when its module moves. The current module of each class is read from `configs/`; nothing is listed by hand.
A class of a plugin keeps its full path, since two plugins may each have a class of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import yaml

TARGET = "_target_"
PROJECT = ("runner.", "tasks.", "reporting.")
# current name of a class -> the name by which it was first registered, which hashes and saved runs keep
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


def with_stable_names(node: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of a config, or of a node of one, in which every `_target_` is a stable name."""
    named = {key: apply_to_mappings(value, with_stable_names) for key, value in node.items()}
    if isinstance(target := node.get(TARGET), str):
        named[TARGET] = stable_name(target)
    return named


def apply_to_mappings(value: object, change: Callable[[Mapping[str, object]], object]) -> object:
    """Return a mapping, or each mapping in a list, changed by `change`; any other value as it is."""
    if isinstance(value, list):
        return [apply_to_mappings(item, change) for item in value]
    return change(value) if isinstance(value, Mapping) else value


def registered(role: str) -> Mapping[str, str]:
    """Return {stable name: dotted path} of the classes allowed under `role`, a top-level key of the config."""
    return {stable_name(path): path for path in _registered_paths().get(role, ())}


@cache
def _registered_paths() -> Mapping[str, tuple[str, ...]]:
    """Return the targets in `configs/` by role; a role is the name of a folder, or a key of train.yaml."""
    by_role: dict[str, set[str]] = {}
    for entry in files("configs").iterdir():
        roles: list[tuple[str, object]] = []
        if entry.is_dir():
            roles += [(entry.name, _load(file)) for file in entry.iterdir() if file.name.endswith(".yaml")]
        elif entry.name.endswith(".yaml"):
            roles += _load(entry).items()
        for role, node in roles:
            by_role.setdefault(role, set()).update(targets_in(node))
    return {role: tuple(sorted(paths)) for role, paths in by_role.items()}


def _load(file: Traversable) -> dict[str, object]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(file.read_text(encoding="utf-8"), loader) or {}


def targets_in(node: object) -> Iterator[str]:
    """Yield every `_target_` in `node`, at any depth."""
    if isinstance(node, Mapping) and TARGET in node:
        yield node[TARGET]
    for item in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from targets_in(item)
