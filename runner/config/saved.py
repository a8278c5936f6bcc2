"""The config of a run that may be anybody's: it may name only the classes registered for each role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.common import run_schema
from runner.common.class_names import PROJECT, TARGET, registered, stable_name
from runner.common.errors import HydromelError
from runner.common.files import cannot_write, write_text

Config = dict[str, Any]
MODEL = ("task", "dataset", "features", "embedding", "encoder")  # what is built to answer text
_ALWAYS = ("dtype", "max_length", "choices")
_PLUGINS = "; plugins (--plugins NAME, or plugins=[NAME] where options have that form) names modules that you trust"


def write_config(config: Config, folder: Path) -> None:
    """Write a resolved config into a run's folder, which is made where it is missing.

    Raises:
        HydromelError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_text(folder / run_schema.RESOLVED, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def config_of(folder: Path, built: Sequence[str], plugins: Sequence[str]) -> Config:
    """Return what a run's folder says of its model, classes named where they lie now.

    Args:
        built: groups of the config that are to be built, such as `encoder`.
        plugins: further modules that the user, not the run, allows.

    Raises:
        HydromelError: no run's folder, a damaged config, or one that names in `built` what is not allowed.
    """
    path = folder / run_schema.RESOLVED
    if folder.is_file():
        raise HydromelError(f"{folder}: that is a file; give the run's folder, {folder.parent}")
    if not path.is_file():
        raise HydromelError(f"{folder}: that is no run's folder (it has no {run_schema.RESOLVED})")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HydromelError(f"{path}: damaged, no YAML ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise HydromelError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise HydromelError(f"{path}: damaged, it holds no options")
    for key in (*built, *_ALWAYS):
        if key not in config or (key in built and not isinstance(config[key], dict)):
            raise HydromelError(f"{path}: damaged, it lacks '{key}'")
    return locate_classes(config, built, path, plugins)


def locate_classes(config: Config, keys: Iterable[str], path: Path, plugins: Sequence[str] | None) -> Config:
    """Return a saved config in which every `_target_` below `keys` says where its class lies now.

    This is stricter than `build`: the project has functions that a saved run must not have called, such as commands.
    A class of the project must be registered for its role, the key; in modules of `plugins` a target stays as it is.

    Args:
        path: where the config was saved, for messages.
        plugins: further modules that the user, not the run, allows; None: the user cannot name any.

    Raises:
        HydromelError: a target that is neither registered for its role nor in a plugin.
    """
    return config | {key: _located(config[key], key, f"{path}: {key}", plugins) for key in keys}


def _located(node: Any, role: str, where: str, plugins: Sequence[str] | None) -> Any:
    if isinstance(node, list):
        return [_located(item, role, f"{where}[{place}]", plugins) for place, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    located = {key: _located(item, role, f"{where}.{key}", plugins) for key, item in node.items()}
    if (target := node.get(TARGET)) is not None:
        located[TARGET] = _present_path(str(target), role, where, plugins)
    return located


def _present_path(target: str, role: str, where: str, plugins: Sequence[str] | None) -> str:
    if target.startswith(tuple(f"{plugin.rstrip('.')}." for plugin in plugins or ())):
        return target
    known = registered(role)
    if target.startswith(PROJECT) and (path := known.get(stable_name(target))) is not None:
        return path
    raise HydromelError(
        f"{where}.{TARGET}={target}: not allowed in a saved run; allowed under {role}: {', '.join(known) or 'none'}"
        f"{'' if plugins is None else _PLUGINS}"
    )
