"""A config as `hydromel OVERRIDES` composes it, for the commands that train nothing (audit, plan)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from runner.complaint import explain
from runner.errors import HydromelError
from runner.main import resolve


def compose_config(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The plain config, nothing left to interpolate.

    Args:
        overrides: `GROUP=NAME` and `key=value`, as on the command line.
        config_dir: a folder with further configs (`--config-dir`).

    Raises:
        HydromelError: an unknown group, name or key, or a value that is not of the form key=value.
    """
    search = [] if config_dir is None else [f"hydra.searchpath=[file://{config_dir.resolve()}]"]
    try:
        with initialize_config_module("configs", version_base="1.3"):
            composed = compose("train", [*overrides, *search], return_hydra_config=True)
            choices = dict(composed.hydra.runtime.choices)
            return resolve(compose("train", [*overrides, *search]), choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise HydromelError(explain(error)) from error


def strategies(config_dir: Path | None) -> list[str]:
    """Names of all configs of the group `batching`."""
    groups = [files("configs").joinpath("batching")]
    if config_dir is not None and (config_dir / "batching").is_dir():
        groups.append(config_dir / "batching")
    return sorted({Path(one.name).stem for group in groups for one in group.iterdir() if one.name.endswith(".yaml")})
