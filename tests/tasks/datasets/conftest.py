"""Fixtures that make corpora from their configs."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.helpers.published import DATA

CONFIGS = Path(__file__).parents[3] / "configs" / "dataset"


@pytest.fixture
def corpus() -> Callable[..., Any]:
    """Return `corpus(name, data_dir, **overrides)`, which makes the reader of configs/dataset/`name`.yaml."""

    def build(name: str, data_dir: Path | None, /, **overrides: object) -> Any:
        root = OmegaConf.create({"data_dir": None if data_dir is None else str(data_dir)})
        root = OmegaConf.merge(root, {"dataset": OmegaConf.load(CONFIGS / f"{name}.yaml")})
        arguments = OmegaConf.to_container(root.dataset, resolve=True, throw_on_missing=False) | overrides
        module, _, reader = arguments.pop("_target_").rpartition(".")
        return getattr(importlib.import_module(module), reader)(**arguments)

    return build


@pytest.fixture
def published() -> Path:
    """Return the folder of published data sets."""
    if not DATA:
        pytest.skip("HYDROMEL_DATA names no folder of published data sets")
    return Path(DATA)
