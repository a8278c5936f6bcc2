"""The content of `result.json`: a finished run's figures."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from runner.common.records import Figures, MemoryRecord, ResultRecord, SplitsRecord
from runner.data.numericalize import Data, predicted_split
from runner.experiment.flops import arithmetic
from runner.experiment.preparation import Prepared
from runner.inference.predictions import inspect, run_split
from runner.interfaces import HasBaselines
from runner.model import Model, descriptions, has_randomness, parameter_count
from runner.profiling.energy import SOURCE
from runner.profiling.kernels import KernelWatch
from runner.ragged.ragged import Ragged
from runner.tables.detail import set_apart
from runner.terminal.progress import track
from runner.tracking.provenance import provenance
from runner.training.checkpoint import checkpoint_path, load_checkpoint
from runner.training.out_of_memory import evaluate_within_memory, measure_if_memory_suffices, memory_record
from runner.training.state import Training

log = logging.getLogger(__name__)


def finish(prepared: Prepared, memory: MemoryRecord) -> ResultRecord:
    """Evaluate the best checkpoint on the test set, and return the content of `result.json` (docs/results.md)."""
    t, data, config = prepared.training, prepared.data, prepared.config
    load_checkpoint(checkpoint_path(t.run.path, "best"), t.model)
    metrics, majority, baselines = _evaluate(prepared)
    run, tags = t.run.run, t.run.run["tags"]
    main, scale = t.measures.main, t.measures.scales[t.measures.main]
    result: ResultRecord = {
        "run_id": run["run_id"],
        "name": run["name"],
        "task": tags["task"],
        "dataset": tags["dataset"],
        "embedding": tags["embedding"],
        "encoder": tags["encoder"],
        "batching": tags["batching"],
        "seed": config.seed,
        "turn": config.turn,
        "sweep_id": run["sweep_id"],
        "experiment": run["experiment"],
        "quality": {"metric": main, "unit": scale.unit, "higher_is_better": scale.higher_is_better},
        "metrics": metrics,
        "majority": majority,
        "baselines": baselines,
        "speed": t.costs.speed(t.settings.warmup_updates),
        "data": data.counts,
        "tokens": {
            "real": t.costs.real_tokens,
            "padded": t.costs.padded_tokens,
            "padding_share": t.costs.padded_tokens / max(1, t.costs.real_tokens + t.costs.padded_tokens),
            "supervised": t.costs.supervised,
            "truncated": data.counts["train"]["cut_tokens"] + data.splits["train"].real_tokens - t.train.real_tokens,
        },
        "padding": t.costs.padding_record(),
        "characters": t.costs.characters_record(),
        "seconds": t.clock.record(),
        "memory": memory_record(t, memory),
        "energy": t.costs.energy(SOURCE),
        # These two run the model once more. A lack of memory there must not lose the run.
        "arithmetic": measure_if_memory_suffices(t, "arithmetic", lambda: arithmetic(t)),
        "kernel": measure_if_memory_suffices(t, "kernel", lambda: kernel(t)),
        "advice": run.get("advice"),
        "init_from": run.get("init_from"),
        "changes": run.get("changes", []),
        "updates": {
            "count": t.progress.updates,
            "epochs": t.progress.epoch,
            "digest": t.progress.digest,
            "dropout": has_randomness(t.model),
        },
        "model": {"parameters": parameter_count(t.model)},
        "vocab": _vocab(t.model, data),
        "provenance": provenance(config, t.clock.device, data.fingerprint),
    }
    if any(data.notes.values()):
        result["notes"] = data.notes
    if counters := t.costs.other_counters():
        result["counters"] = counters
    return result


def _evaluate(prepared: Prepared) -> tuple[SplitsRecord, Figures | None, Mapping[str, Figures]]:
    """Evaluate on the test set, or on the validation set if there is none.

    Return the metrics by split; on the test set, also those of the most frequent target and of other simple models.
    """
    t, data, config = prepared.training, prepared.data, prepared.config
    majority, baselines = None, {}
    last = predicted_split(data.splits)
    results = evaluate_within_memory(t, lambda: run_split(t, data.splits[last]))
    if last == "test" and isinstance(t.task, HasBaselines):
        majority = _measured(t, data, t.task.majority(data.splits["train"], data.splits["test"], data.vocabs))
        baselines = _baselines(t, data, t.task) if config.baselines else {}
    corpus = prepared.corpus if config.predictions else None
    measured = t.measures.of_split(results.values, data.splits[last], data.vocabs)
    metrics: SplitsRecord = {"valid": t.progress.best_metrics}
    metrics[last] = {**measured, **metrics.get(last, {}), **inspect(t, data, last, results, corpus)}
    metrics[last] = set_apart(metrics[last], t.run.path, last)
    return metrics, majority, baselines


def _vocab(model: Model, data: Data) -> dict[str, object]:
    """Return the vocabularies, and the reports of the model's parts; `vectors` and `characters` always exist."""
    reports: dict[str, list[Mapping[str, object]]] = {"vectors": [], "characters": []}
    for description in descriptions(model, data.splits):
        reports.setdefault(description.kind, []).append(description.entry)
    return {"size": data.vocab_sizes, "oov_rate": data.oov_rate, **reports}


def _baselines(t: Training, data: Data, task: HasBaselines) -> dict[str, Figures]:
    """Return each simple model's figures on test and its `seconds`, or the reason why it is left out."""
    models = task.baselines(data.splits["train"], data.splits["test"], data.vocabs)
    by_name: dict[str, Figures] = {}
    seconds, start = 0.0, time.perf_counter()
    for name, values in track(models, "baselines"):
        # seconds of all models so far, since a model may build on the previous one
        seconds += time.perf_counter() - start
        if isinstance(values, str):
            log.info("baseline %s is left out: %s", name, values)
            by_name[name] = {"left_out": values}
        else:
            by_name[name] = _measured(t, data, values) | {"seconds": seconds}
        start = time.perf_counter()
    return by_name


def _measured(t: Training, data: Data, values: Tensor) -> dict[str, float]:
    """Return the figures on test of a simple model's predictions or losses, without tables."""
    test = data.splits["test"]
    per_target = Ragged(values, test.target.rows, "packed") if isinstance(test.target, Ragged) else values
    measured = t.measures.of_split({t.task.metric.input_kind: per_target}, test, data.vocabs)
    return {name: value for name, value in measured.items() if isinstance(value, float)}


def kernel(t: Training) -> str:
    """Return the kernels and the layout of a training batch, from the operations of one forward pass."""
    rows = t.batching.updates(t.train.cost_lengths, t.seed, 0)[0]
    batch = next(t.batching.micro_batches(t.train, rows))
    t.model.train()
    with KernelWatch() as watch, torch.autocast(t.clock.device.type, torch.bfloat16, enabled=t.bf16):
        t.model(batch, None)
    text: str = watch.describe(t.batching.layout)
    return text
