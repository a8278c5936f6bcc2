"""The content of `result.json`: a finished run's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from runner.common import run_schema
from runner.common.records import MemoryRecord, ResultRecord, SplitsRecord
from runner.config.schema import RunConfig
from runner.data.numericalize import Data
from runner.experiment.flops import arithmetic
from runner.inference.predictions import figures, inspect, run_split
from runner.interfaces import Corpus
from runner.model import Model, descriptions, has_randomness, parameter_count
from runner.profiling.energy import SOURCE
from runner.profiling.kernels import KernelWatch
from runner.tracking.provenance import provenance
from runner.training import out_of_memory
from runner.training.checkpoint import checkpoint_path, load_checkpoint
from runner.training.state import Training


def finish(t: Training, data: Data, config: RunConfig, corpus: Corpus, memory: MemoryRecord) -> ResultRecord:
    """Evaluate the best checkpoint on test, and put the result together; docs/results.md explains each key."""
    metrics: SplitsRecord = {"valid": t.progress.best_metrics}
    majority, baselines = None, {}
    load_checkpoint(checkpoint_path(t.run.path, "best"), t.model)
    last: Literal["valid", "test"] = "test" if "test" in data.splits else "valid"
    said = out_of_memory.evaluate_within_memory(t, lambda: run_split(t, data.splits[last]))
    if last == "test":
        metrics["test"] = figures(t, said, data.splits["test"])
        known = data.splits["train"], data.splits["test"], data.vocabs
        majority = t.task.majority(*known)
        baselines = t.task.baselines(*known) if config.baselines else {}
    tables = inspect(t, data, last, said, corpus if config.predictions else None)
    metrics[last] = {**metrics[last], **tables}
    tags, micro_batch = t.run.run["tags"], config.batching.get("micro_batch")
    used = out_of_memory.measure_if_memory_suffices(t, "arithmetic", lambda: arithmetic(t))
    result: ResultRecord = {
        "run_id": t.run.run_id,
        "name": t.run.run["name"],
        "task": tags["task"],
        "dataset": tags["dataset"],
        "embedding": tags["embedding"],
        "encoder": tags["encoder"],
        "batching": tags["batching"],
        "seed": config.seed,
        "turn": config.turn,
        "sweep_id": t.run.run["sweep_id"],
        "experiment": t.run.run["experiment"],
        "quality": {"metric": t.task.quality, "higher_is_better": run_schema.higher_is_better(t.task.quality)},
        "metrics": metrics,
        "majority": majority,
        "baselines": baselines,
        "speed": t.costs.speed(t.settings.warmup_updates),
        "tokens": {
            "real": t.costs.real_tokens,
            "padded": t.costs.padded_tokens,
            "supervised": t.costs.supervised,
            "truncated": data.truncated_tokens["train"] + data.splits["train"].real_tokens - t.train.real_tokens,
        },
        "padding": t.costs.padding_record(),
        "characters": t.costs.characters_record(),
        "seconds": t.clock.record(),
        "memory": out_of_memory.memory_record(t, memory, micro_batch if isinstance(micro_batch, int) else None),
        "energy": t.costs.energy(SOURCE),
        "arithmetic": used,
        "advice": t.run.run.get("advice"),
        "kernel": out_of_memory.measure_if_memory_suffices(t, "kernel", lambda: kernel(t)),
        "updates": {
            "count": t.progress.updates,
            "epochs": t.progress.epoch,
            "digest": t.progress.digest,
            "dropout": has_randomness(t.model),
        },
        "model": {"parameters": parameter_count(t.model)},
        "vocab": {
            "size": {name: len(vocab) for name, vocab in data.vocabs.items()},
            "oov_rate": data.oov_rate,
            **_described(t.model, data),
        },
        "provenance": provenance(config, t.clock.device, data.fingerprint),
    }
    if counters := t.costs.other_counters():
        result["counters"] = counters
    return result


def kernel(t: Training) -> str:
    """What really runs for a training batch of this strategy: torch's own operations, watched for one forward pass."""
    rows = t.batching.updates(t.train.rows.host_lengths, t.seed, 0)[0]
    batch = next(t.batching.micro_batches(t.train, rows))
    t.model.train()
    with KernelWatch() as watch, torch.autocast(t.clock.device.type, torch.bfloat16, enabled=t.bf16):
        t.model(batch, None)
    text: str = watch.describe(t.batching.layout)
    return text


def _described(model: Model, data: Data) -> dict[str, list[Mapping[str, object]]]:
    """Return what the model's parts report on the data set, by kind; the kinds of this project are always there."""
    by_kind: dict[str, list[Mapping[str, object]]] = {"vectors": [], "characters": []}
    for description in descriptions(model, data.splits):
        by_kind.setdefault(description.kind, []).append(description.entry)
    return by_kind
