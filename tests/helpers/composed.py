"""Configs as the command composes them, and small data sets, for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.components.model_parts import ModelParts
from runner.config.compose import compose_config
from runner.config.saved import write_config
from runner.config.schema import ModelConfig, RunConfig
from runner.data.numericalize import Data, load_data
from runner.data.truncation import Truncation
from runner.experiment.run import run_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
QUIET = ("tracker=none", "cache_dir=null", "train.warmup_updates=0", "run_plots=null", "sweep.id=null")


def run_config(*overrides: str) -> RunConfig:
    """Return the config that `hydromel OVERRIDES` composes."""
    return compose_config(overrides)


def config(*overrides: str) -> dict[str, Any]:
    """Return the same as plain values."""
    return compose_config(overrides).resolved


def node_of(group: str, name: str) -> dict[str, Any]:
    """Return the node of a file of configs/ merged with the files that it is based on, nothing interpolated."""
    node = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    bases = [base for base in node.pop("defaults", ()) if base != "_self_"]
    merged = OmegaConf.to_container(OmegaConf.merge(*(node_of(group, base) for base in bases), node))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def parts(config: ModelConfig) -> ModelParts:
    """Return the parts of the model that a config describes."""
    return ModelParts.of(config, [])


def data_of(config: RunConfig) -> Data:
    """Return the config's data set as integers."""
    return load_data(parts(config), Truncation(config.max_length, config.truncate), config.cache_dir)


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """Return the result of a run in `folder`, in this process."""
    result = run_config(*QUIET, *overrides, f"runs_dir={folder.parent}")
    return run_experiment(result, folder, 0.0)


def run_as_command(folder: Path, *overrides: str) -> Path:
    """Make a run's folder as the command leaves it, in this process; return it."""
    composed = run_config(*QUIET, *overrides, f"runs_dir={folder.parent}")
    folder.mkdir()
    write_config(composed, folder)
    run_experiment(composed, folder, 0.0)
    return folder


def tag_files(folder: Path, rows: int = 120, seed: int = 1) -> list[str]:
    """A learnable tagging set of uneven rows; the overrides that read it."""
    rng = random.Random(seed)
    words = {
        "B-PER": ["Ann", "Bob", "Cid"],
        "B-LOC": ["Rome", "Oslo"],
        "O": ["the", "saw", "went", "to", "a", ".", "x"],
    }
    for split, count in (("train", rows), ("valid", rows // 3), ("test", rows // 3)):
        lines: list[str] = []
        for _ in range(count):
            for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 21])):
                tag = rng.choice(["O", "O", "B-PER", "B-LOC"])
                lines.append(f"{rng.choice(words[tag])}\t{tag}")
            lines.append("")
        (folder / f"{split}.conll").write_text("\n".join(lines), encoding="utf-8")
    names = ["train", "valid", "test"]
    return ["task=tag", "dataset=wnut17", f"data_dir={folder}", *(f"dataset.{name}={name}.conll" for name in names)]


def label_files(folder: Path, rows: int = 120, seed: int = 1) -> list[str]:
    """A learnable classification set of uneven rows, an empty one among them; the overrides that read it."""
    rng = random.Random(seed)
    words = {"0": ["bad", "dull", "sad"], "1": ["good", "fine", "glad"]}
    for split, count in (("train", rows), ("valid", rows // 3), ("test", rows // 3)):
        lines = ["1 "]
        for _ in range(count - 1):
            label = rng.choice("01")
            length = rng.choice([1, 2, 3, 5, 8, 13])
            lines.append(f"{label} " + " ".join(rng.choice([*words[label], "the", "it", "a"]) for _ in range(length)))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = ["train", "valid", "test"]
    return ["task=classify", "dataset=sst2", f"data_dir={folder}", *(f"dataset.{name}={name}.txt" for name in names)]


def pair_files(folder: Path, rows: int = 120, seed: int = 1) -> list[str]:
    """Pairs of uneven texts, empty ones among them, with a common word or not; the overrides that read them."""
    rng, words = random.Random(seed), ["ab", "bc", "cd", "de", "ef", "fg", "gh", "ha"]
    for split, count in (("train", rows), ("valid", rows // 3), ("test", rows // 3)):
        lines = [{"premise": first, "hypothesis": second, "label": "no"} for first, second in (("", "ab"), ("bc", ""))]
        for _ in range(count - 2):
            first, second = (rng.choices(words, k=rng.choice([0, 1, 2, 3, 5, 8])) for _ in range(2))
            label = "yes" if set(first) & set(second) else "no"
            lines.append({"premise": " ".join(first), "hypothesis": " ".join(second), "label": label})
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    names = ["train", "valid", "test"]
    files = [f"data_dir={folder}", *(f"dataset.{name}={name}.jsonl" for name in names)]
    return ["task=classify", "dataset=jsonl", "dataset.text_columns={a: premise, b: hypothesis}", *files]
