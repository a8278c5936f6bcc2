"""The config of a run that may be anybody's: it may name only what makes up a model and its data (`PARTS`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import cannot_write, write_text

Config = dict[str, Any]
PARTS = (
    "runner.embeddings.",
    "runner.encoders.",
    "runner.batching.",
    "runner.text.features.",
    "runner.text.vocab.",
    "tasks.",
)
MODEL = ("task", "dataset", "features", "embedding", "encoder")  # what is built to answer text
_ALWAYS = ("dtype", "max_length", "choices")


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
    """What a run's folder says of its model.

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
    for key in built:
        _check_targets(config[key], f"{path}: {key}", (*PARTS, *(f"{plugin.rstrip('.')}." for plugin in plugins)))
    return config


def _check_targets(node: Any, where: str, allowed: tuple[str, ...]) -> None:
    """Stricter than `build`: the project has functions that a saved run must not have called, such as commands."""
    if isinstance(node, list):
        for place, one in enumerate(node):
            _check_targets(one, f"{where}[{place}]", allowed)
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(allowed):
            raise HydromelError(
                f"{where}._target_={target}: not allowed in a saved run; plugins (--plugins NAME, or plugins=[NAME] "
                "where options have that form) names modules that you trust"
            )
        for key, one in node.items():
            _check_targets(one, f"{where}.{key}", allowed)
