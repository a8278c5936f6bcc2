"""The predicted cost of training with a strategy, and the choice of `batching=auto` based on it.

Speed is predicted by a probe, memory by an estimate. The choice is recorded in the run's folder.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence

import torch

from runner.advisor.memory_estimate import MemoryEstimator, MemoryUse
from runner.advisor.speed_probe import Candidate, SpeedProbe
from runner.batching.costs import computed_padding
from runner.common.errors import HydromelError
from runner.common.records import AdviceRecord, CandidateRecord
from runner.components.measures import Measures
from runner.components.run_components import optimizer_factory, with_batch_size
from runner.config.schema import RunConfig
from runner.data.numericalize import Data
from runner.interfaces import StrategyChooser, Task
from runner.model import Model, assume_read, device_of, with_pieces
from runner.profiling import accounting
from runner.ragged.shapes import tokens_in
from runner.ragged.updates import Updates
from runner.terminal.progress import show_seconds, stage
from runner.tracking.run_folder import RunFolder
from runner.training.checkpoint import checkpoint_path
from runner.training.setup import build_optimizer

log = logging.getLogger(__name__)
MIB = 2**20
LEAST_TIMED = 1 / 3  # share of `probe_seconds` that timing gets, however long the estimate of memory takes


def memory_estimator(config: RunConfig, task: Task, data: Data, model: Model) -> MemoryEstimator:
    """Return an estimator of a run's memory. It trains `model` itself, which must be on the CPU."""
    return MemoryEstimator(
        model,
        task,
        metric=lambda: Measures.of(task).start(data.vocabs),
        optimizer=build_optimizer(optimizer_factory(config), model, config.train.decay_vectors),
        bf16=config.bf16,
        eval_batch_size=config.train.eval_batch_size,
    )


def speed_probe(config: RunConfig, task: Task, model: Model) -> SpeedProbe:
    """Return a probe that measures a run's speed by training this model."""
    optimizer = build_optimizer(optimizer_factory(config), model, config.train.decay_vectors)
    epochs = config.train.epochs if config.threads is None and config.ranks == 1 else None
    return SpeedProbe(model, task, optimizer, config.train.clip_norm, config.bf16, epochs)


def predict_costs(
    candidates: Sequence[Candidate],
    memories: Sequence[MemoryUse | str],
    probe: SpeedProbe,
    probe_seconds: float,
    epochs: int,
    copied: bool,
) -> list[CandidateRecord | str]:
    """Return the predicted cost of each candidate, or torch's message about the kernel that this machine lacks.

    Args:
        candidates: strategies with their updates of `epochs` epochs.
        memories: the estimated memory of each, or the missing kernel.
        probe: the speed probe, on the training device; it takes about `probe_seconds`.
        copied: whether memory was estimated on a copy of the model.
    """
    # Memory in use now. The memory estimate has left gradients and optimiser state, and the code of the kernels is
    # loaded. A GPU needs no such figure, since its allocator counts tensors only.
    resident_bytes = accounting.Memory(probe.device).before
    costs: list[CandidateRecord | str] = []
    with stage("timing batches", probe_seconds, look=show_seconds):
        predicted = probe.predict(candidates, probe_seconds)
    for candidate, memory, seconds in zip(candidates, memories, predicted, strict=True):
        if isinstance(memory, str) or isinstance(seconds, str):
            costs.append(memory if isinstance(memory, str) else str(seconds))
            continue
        peak_bytes = max(memory.update_bytes, memory.scoring_bytes)
        if probe.device.type == "cuda":
            peak_bytes += memory.staying_bytes
        else:
            peak_bytes += resident_bytes - memory.gradient_bytes - copied * memory.parameter_bytes
        train, batching = candidate.train, candidate.batching
        tokens, computed = (epochs * int(tokens_in(of).sum()) for of in (train.lengths, train.cost_lengths))
        padded = sum(computed_padding(batching, train, candidate.updates).values())
        cost: CandidateRecord = {
            "name": candidate.name,
            "batch_size": batching.batch_size,
            "layout": batching.layout,
            "predicted_real_tokens_per_s": tokens / seconds,
            "predicted_epoch_seconds": seconds / epochs,
            "predicted_peak_bytes": peak_bytes,
            "padding_share": padded / max(1, computed + padded),
        }
        if train.pieces is not None:
            cost["predicted_pieces_per_s"] = computed / seconds
        costs.append(cost)
    return costs


def choose_strategy(
    config: RunConfig, task: Task, auto: StrategyChooser, run: RunFolder, model: Model, data: Data
) -> RunConfig:
    """Return the config with the strategy that `auto` chooses, under the name of `auto`.

    A run keeps its choice once training has started. The probe trains a copy of the model and restores the random
    state, so that the run stays as it would be without it.

    Raises:
        HydromelError: this machine runs none of the candidates, or none stays within `max_memory_bytes`.
    """
    advice = run.run.get("advice")
    if advice is None or not checkpoint_path(run.path, "last").exists():
        device = device_of(model)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            advice = _advise(config, task, auto, model, data)
        run.set_advice(advice)
    log.info(_describe(advice))
    candidates = config.batching["candidates"]
    assert isinstance(candidates, dict)
    chosen = with_batch_size(candidates[advice["chosen"]], advice["batch_size"])
    return config.changed(batching={**chosen, "name": config.batching["name"]})


def _advise(config: RunConfig, task: Task, auto: StrategyChooser, model: Model, data: Data) -> AdviceRecord:
    device, copied = device_of(model), copy.deepcopy(model).cpu()
    assume_read(copied)  # rows that are cut for a trial are none of the data set's
    names = sorted(data.splits, key="train".__ne__)
    train, *others = (with_pieces(model, data.splits[name].to(device)) for name in names)
    begin = time.perf_counter()
    candidates = [
        Candidate(name, batching, train, Updates.of(batching.updates(train.cost_lengths, config.seed, 0)))
        for name, batching in auto.strategies()
    ]
    estimator = memory_estimator(config, task, data, copied)
    memories = [
        estimator.estimate_or_missing_kernel(candidate.batching, train, others, candidate.updates)
        for candidate in candidates
    ]
    probe = speed_probe(config, task, copied.to(device))
    left = auto.probe_seconds - (time.perf_counter() - begin)  # estimating memory takes seconds with a large model
    seconds = max(left, LEAST_TIMED * auto.probe_seconds)
    predictions = predict_costs(candidates, memories, probe, seconds, epochs=1, copied=True)
    costs = [cost for cost in predictions if not isinstance(cost, str)]
    named = zip(candidates, predictions, strict=True)
    not_run = {candidate.name: kernel for candidate, kernel in named if isinstance(kernel, str)}
    if not costs:
        raise HydromelError(
            f"batching=auto: this machine runs none of the candidates ({next(iter(not_run.values()))}); use "
            "precision=float32"
        )
    best = fastest(costs, auto.max_memory_bytes)
    return {
        "chosen": best["name"],
        "batch_size": best["batch_size"],
        "candidates": costs,
        "not_run": not_run,
        "probe_seconds": time.perf_counter() - begin,
    }


def fastest(costs: Sequence[CandidateRecord], max_memory_bytes: int | None) -> CandidateRecord:
    """Return the record of the candidate with the most real tokens per second, among those within the memory limit.

    Raises:
        HydromelError: none is within the limit.
    """
    fitting = [cost for cost in costs if max_memory_bytes is None or cost["predicted_peak_bytes"] <= max_memory_bytes]
    if not fitting:
        least = min(costs, key=lambda cost: cost["predicted_peak_bytes"])
        raise HydromelError(
            f"batching.max_memory_bytes={max_memory_bytes}: the least that any candidate needs is "
            f"{least['predicted_peak_bytes']} ({least['name']}, batch_size={least['batch_size']}); allow more, or try "
            "smaller batching.batch_sizes"
        )
    return max(fitting, key=lambda cost: cost["predicted_real_tokens_per_s"])


def _describe(advice: AdviceRecord) -> str:
    rates = [
        f"{cost['name']}{'' if cost['batch_size'] is None else ' ' + str(cost['batch_size'])} "
        f"{cost['predicted_real_tokens_per_s']:,.0f} ({cost['predicted_peak_bytes'] / MIB:,.0f} MiB)"
        for cost in sorted(advice["candidates"], key=lambda cost: -cost["predicted_real_tokens_per_s"])
    ]
    size = "" if advice["batch_size"] is None else f" with batch_size={advice['batch_size']}"
    missing = advice.get("not_run", {})
    not_run = f"; not run here: {', '.join(missing)} ({next(iter(missing.values()))})" if missing else ""
    return (
        f"batching=auto continues as {advice['chosen']}{size}; real tokens/s (and peak memory) predicted in "
        f"{advice['probe_seconds']:.1f} s: {', '.join(rates)}{not_run}"
    )
