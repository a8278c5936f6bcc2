"""configs/task/*.yaml, composed in the order of the root config: data set first, then task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner.config.instantiate import build

CONFIGS = Path(__file__).parents[2] / "configs"
DATASETS = {
    "classify": "stdlib_modules",
    "regress": "stdlib_functions",
    "tag": "stdlib_roles",
    "lm": "stdlib_words",
}
FIGURES = {"classify": "accuracy", "regress": "pearson", "tag": "f1", "lm": "perplexity"}


def composed(folder: Path, *overrides: str) -> dict[str, Any]:
    (folder / "root.yaml").write_text("defaults:\n  - dataset: stdlib_modules\n  - task: classify\n  - _self_\n")
    search = f"hydra.searchpath=[file://{CONFIGS}]"
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = OmegaConf.to_container(compose("root", [search, *overrides]), resolve=True)
    assert isinstance(config, dict)
    return config


def test_every_task_is_here() -> None:
    assert {path.stem for path in (CONFIGS / "task").glob("*.yaml")} == set(DATASETS)


@pytest.mark.parametrize("task", DATASETS)
def test_a_task_brings_a_data_set_that_suits_it(task: str, tmp_path: Path) -> None:
    config = composed(tmp_path, f"task={task}")
    assert config["dataset"]["name"] == DATASETS[task]
    built = build(config["task"], "task", {})
    assert built.name == task
    assert built.main_metric == FIGURES[task]


def test_the_command_line_may_name_another_data_set(tmp_path: Path) -> None:
    config = composed(tmp_path, "task=tag", "dataset=columns_file", "dataset.train=x", "+data_dir=y")
    assert config["dataset"]["name"] == "columns_file"
    assert config["task"]["span_scheme"] == "auto"


def test_the_scheme_is_that_of_the_data_set_unless_named(tmp_path: Path) -> None:
    assert composed(tmp_path, "task=tag", "dataset=wnut17", "+data_dir=y")["task"]["span_scheme"] == "IOB2"
    assert composed(tmp_path, "task=tag", "task.span_scheme=IOBES")["task"]["span_scheme"] == "IOBES"
    # a data set of labels has no such key
    assert composed(tmp_path, "task=tag", "dataset=sst2", "+data_dir=y")["task"]["span_scheme"] == "auto"
