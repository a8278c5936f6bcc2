"""Configs of saved runs. They are not trusted: docs/security.md says what an untrusted folder can and cannot do.

They may name only the classes registered for each role, and nothing in them is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from runner.common import run_schema
from runner.common.bounded import read_yaml, to_yaml
from runner.common.class_names import PROJECT, TARGET, apply_to_mappings, registered, stable_name
from runner.common.errors import HydromelError, shortened
from runner.common.files import write_text
from runner.config.schema import ModelConfig, Node, Plain, RunConfig

MODEL = ("task", "dataset", "features", "embedding", "encoder")  # sections that prediction builds
OPTIONAL = ("metric", "tokenizer")  # sections that may be null, or missing in runs of earlier versions
_ALWAYS = ("dtype", "max_length", "choices")
C = TypeVar("C", bound=ModelConfig)
_PLUGINS = "; to trust a module of your own, use --plugins NAME (plugins=[NAME] with hydromel and hydromel-audit)"


def write_config(config: RunConfig, folder: Path) -> None:
    """Write a resolved config to a run's folder, created if it is missing. Raises HydromelError if that fails."""
    write_text(folder / run_schema.RESOLVED, to_yaml(config.resolved))


def saved_model(folder: Path, plugins: Sequence[str], data_dir: str | None = None) -> ModelConfig:
    """Return the config of a run's model, with classes at their current paths.

    `plugins` are modules that the user, not the run, allows; `data_dir` is the folder of the data set and of vector
    files (None: as in training).

    Raises:
        HydromelError: `folder` is not a run's, or its config is damaged or names what is not allowed.
    """
    options = _read(folder, MODEL, plugins)
    if data_dir is not None:
        options = with_option("data_dir", data_dir, options)
    return _typed(ModelConfig, options, folder)


def saved_run(folder: Path, plugins: Sequence[str]) -> RunConfig:
    """Return the whole config of a run; raises as `saved_model`, and for options of another version."""
    return _typed(RunConfig, saved_options(folder, plugins), folder)


def saved_options(folder: Path, plugins: Sequence[str]) -> dict[str, object]:
    """Return all options of a run as plain values, to be changed and resumed; nothing is interpolated.

    Raises as `saved_model`.
    """
    options = _read(folder, (*MODEL, "batching", "optimizer", "schedule", "tracker"), plugins)
    everywhere = locate_classes(options, options, folder / run_schema.RESOLVED, plugins)
    return everywhere | {"plugins": list(plugins)}  # a saved config must not decide which modules are trusted


def saved_node(folder: Path, role: str, plugins: Sequence[str]) -> Node:
    """Return one node of a run's config, such as `batching`; errors are those of `saved_model`."""
    node = _read(folder, (role,), plugins)[role]
    assert isinstance(node, dict)
    return node


def written_config(folder: Path) -> RunConfig:
    """Return the config that this program has just written to a folder, with the plugins that its user allowed."""
    return _typed(RunConfig, _options_in(folder / run_schema.RESOLVED), folder)


def _typed(kind: type[C], options: Plain, folder: Path) -> C:
    try:
        return kind.of(options)
    except HydromelError as error:
        raise HydromelError(f"{folder / run_schema.RESOLVED}: {error}") from error


def _read(folder: Path, roles: Sequence[str], plugins: Sequence[str]) -> dict[str, object]:
    """Return the plain config in a run's folder, after checking that its nodes in `roles` are allowed."""
    path = folder / run_schema.RESOLVED
    if folder.is_file():
        raise HydromelError(f"{folder}: a file; give the run's folder, {folder.parent}")
    if not folder.exists():
        raise HydromelError(f"{folder}: no such run, neither a folder nor the name or id of one")
    if not path.is_file():
        raise HydromelError(f"{folder}: not a run's folder (it has no {run_schema.RESOLVED})")
    config = _options_in(path)
    for key in (*roles, *_ALWAYS):
        if key not in config or (key in (*roles, "choices") and not isinstance(config[key], dict)):
            raise HydromelError(f"{path}: damaged, it lacks '{key}'")
    present = [key for key in OPTIONAL if config.get(key) is not None]
    return locate_classes(config, (*roles, *present), path, plugins)


def _options_in(path: Path) -> dict[str, object]:
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise HydromelError(f"{path}: damaged, it has no options")
    return config


def locate_classes(config: Plain, keys: Iterable[str], path: Path, plugins: Sequence[str]) -> dict[str, object]:
    """Return a saved config with the current path of the class in every `_target_` below `keys`.

    A saved run must not call arbitrary functions of the project, such as commands, so a class of the project must be
    registered for its role, the key. In modules of `plugins`, which the user allows, a target stays as it is. `path` is
    the file of the config, for messages.

    Raises:
        HydromelError: a target that is neither registered for its role nor in a plugin.
    """
    return {**config} | {key: _located(config[key], key, f"{path}: {key}", plugins) for key in keys}


def _located(node: object, role: str, where: str, plugins: Sequence[str]) -> object:
    if isinstance(node, list):
        return [_located(item, role, f"{where}[{place}]", plugins) for place, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    located = {key: _located(item, role, f"{where}.{shortened(str(key))}", plugins) for key, item in node.items()}
    if (target := node.get(TARGET)) is not None:
        located[TARGET] = _present_path(str(target), role, where, plugins)
    return located


def _present_path(target: str, role: str, where: str, plugins: Sequence[str]) -> str:
    if target.startswith(tuple(f"{plugin.rstrip('.')}." for plugin in plugins)):
        return target
    present = registered(role)
    if target.startswith(PROJECT) and (path := present.get(stable_name(target))) is not None:
        return path
    allowed = f"allowed under {role}: {', '.join(present.values()) or 'none'}"
    raise HydromelError(f"{where}.{TARGET}={shortened(target)}: not allowed in a saved run; {allowed}{_PLUGINS}")


def with_option(name: str, value: object, node: Plain) -> dict[str, object]:
    """Return the node with `value` in place of the value of every option called `name`, at any depth.

    In `configs/` these options refer to a single one, such as `data_dir`; a saved config has a value for each.
    """
    below = {key: apply_to_mappings(item, partial(with_option, name, value)) for key, item in node.items()}
    return below | ({name: value} if name in node else {})
