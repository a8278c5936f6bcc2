"""The configured data set as integers, as the strategy wants its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.batching.stream import Stream
from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.data.numericalize import Data, load

Config = dict[str, Any]


def load_data(config: Config, task: Any) -> Data:
    """The data set as integers."""
    plugins = config["plugins"]
    corpus = build(config["dataset"], "dataset", {}, plugins)
    features = {name: build(node, f"features.{name}", {}, plugins) for name, node in config["features"].items()}
    if not features:
        raise HydromelError("features={}: at least one is needed, for example features=words")
    cache = None if config["cache_dir"] is None else Path(config["cache_dir"]).expanduser()
    task_key = json.dumps(with_stable_names(config["task"]), sort_keys=True)
    data = load(corpus, features, task, task_key, config["max_length"], config["truncate"], cache)
    for name, split in data.splits.items():
        if not split.rows.n_rows:
            raise HydromelError(f"dataset={corpus.name}: {name} has no examples")
    return data


def arrange(config: Config, batching: Any, train: Any) -> Any:
    """Training rows as the strategy wants them.

    Raises:
        HydromelError: a stream and rows are mixed up, or what is carried over a stream would grow with it.
    """
    one_text = config["task"].get("unit") == "stream"
    if one_text and config["encoder"].get("memory", 0) is None:
        raise HydromelError(
            "encoder.memory=null: over a stream the encoder would remember the whole text; give encoder.memory=N tokens"
        )
    if one_text != isinstance(batching, Stream):
        unit = config["task"].get("unit")
        task = f"task={name_of(config, 'task')}" if unit is None else f"task.unit={unit}"
        raise HydromelError(
            f"task.unit=stream and batching=stream go together; got {task} and batching={batching.name}"
        )
    if one_text and config["max_length"] is not None:
        raise HydromelError("max_length cuts rows, and a stream has only one; use max_length=null")
    return batching.arrange(train)


def describe_data(config: Config, data: Data) -> str:
    """One line for the console."""
    sizes = ", ".join(f"{name} {split.rows.n_rows:,}" for name, split in data.splits.items())
    tokens = data.splits["train"].real_tokens
    words = ", ".join(f"{len(vocab):,} {name}" for name, vocab in data.vocabs.items())
    where = "from the cache" if data.cached else "read"
    cut = data.truncated_tokens["train"]
    kept = f" ({cut:,} more cut off: max_length={config['max_length']}, truncate={config['truncate']})" if cut else ""
    return f"{name_of(config, 'dataset')} ({where}): rows {sizes}; {tokens:,} training tokens{kept}; vocabulary {words}"


def name_of(config: Config, node: str) -> str:
    """What reports call a component: its own name, or the class that it is built from."""
    return str(config[node].get("name") or config[node]["_target_"].rsplit(".", 1)[-1].lower())
