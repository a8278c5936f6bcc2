"""Predict the cost of strategies before training, and choose one: speed from a probe, memory from an estimate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from runner.advisor.memory_estimate import MemoryEstimator, MemoryUse
from runner.advisor.speed_probe import Candidate, SpeedProbe
from runner.common.errors import HydromelError
from runner.common.records import AdviceRecord, CandidateRecord
from runner.components.run_components import with_batch_size
from runner.config.schema import RunConfig
from runner.interfaces import StrategyChooser
from runner.profiling import accounting
from runner.ragged.batch import Batch

MIB = 2**20


@dataclass(frozen=True)
class PredictedCost:
    """The predicted cost of training with one strategy.

    Attributes:
        name: the strategy's name.
        batch_size: maximum number of rows of an update; None: something else limits updates.
        layout: the layout of its batches.
        predicted_real_tokens_per_s: speed of training (data, forward, backward, optimiser), in real tokens per second.
        predicted_epoch_seconds: time of the same for one epoch, in seconds.
        predicted_peak_bytes: the value of `memory.peak_bytes` that result.json would have.
        padding_share: share of padding among all places in memory, 0 to 1.
    """

    name: str
    batch_size: int | None
    layout: str
    predicted_real_tokens_per_s: float
    predicted_epoch_seconds: float
    predicted_peak_bytes: int
    padding_share: float

    def record(self) -> CandidateRecord:
        """Return the entry of `advice.candidates` in result.json."""
        return {
            "name": self.name,
            "batch_size": self.batch_size,
            "layout": self.layout,
            "predicted_real_tokens_per_s": self.predicted_real_tokens_per_s,
            "predicted_epoch_seconds": self.predicted_epoch_seconds,
            "predicted_peak_bytes": self.predicted_peak_bytes,
            "padding_share": self.padding_share,
        }


def predict_cost(candidate: Candidate, name: str, seconds: float, epochs: int, peak_bytes: int) -> PredictedCost:
    """Return the predicted cost of a candidate whose updates, of `epochs` epochs, take `seconds`."""
    lengths, batching = candidate.train.rows.host_lengths, candidate.batching
    tokens, padded = epochs * int(lengths.sum()), sum(batching.padding(lengths, candidate.updates).values())
    return PredictedCost(
        name=name,
        batch_size=batching.batch_size,
        layout=batching.layout,
        predicted_real_tokens_per_s=tokens / seconds,
        predicted_epoch_seconds=seconds / epochs,
        predicted_peak_bytes=peak_bytes,
        padding_share=padded / max(1, tokens + padded),
    )


def predict_peak_bytes(memory: MemoryUse, device: torch.device, resident_bytes: int, copied: bool) -> int:
    """Return the peak that `runner.profiling.accounting.Memory` would measure.

    Args:
        memory: the estimate.
        device: the device of training.
        resident_bytes: memory of this process after the estimate, whose batches have loaded the kernels' code, and
            whose gradients and optimiser state are still there. Unused on a GPU, whose allocator counts tensors only.
        copied: whether the estimate was made on a copy of the model.
    """
    working = max(memory.update_bytes, memory.scoring_bytes)
    if device.type == "cuda":
        return memory.staying_bytes + working
    return resident_bytes - memory.gradient_bytes - copied * memory.parameter_bytes + working


def advise(
    auto: StrategyChooser,
    train: Batch,
    others: list[Batch],
    seed: int,
    estimator: MemoryEstimator,
    make_probe: Callable[[], SpeedProbe],
) -> AdviceRecord:
    """Predict the cost of every candidate and choose the fastest; return the `advice` of result.json.

    Args:
        auto: the candidates.
        train: the training set, on the device of training.
        others: the splits that are evaluated.
        seed: the seed of the plans.
        estimator: of memory, on a copy of the model.
        make_probe: returns the probe of speed; called once memory has been estimated.

    Raises:
        HydromelError: this machine runs none of the candidates, or none stays within `max_memory_bytes`.
    """
    begin, lengths, device = time.perf_counter(), train.rows.host_lengths, train.rows.device
    named = [
        (name, Candidate(batching, train, batching.updates(lengths, seed, 0))) for name, batching in auto.strategies()
    ]
    memories = [
        estimator.estimate_or_missing_kernel(candidate.batching, train, others, candidate.updates)
        for _, candidate in named
    ]
    resident_bytes = accounting.Memory(device).before
    all_seconds = make_probe().predict([candidate for _, candidate in named], auto.probe_seconds)
    costs, not_run = [], {}
    for (name, candidate), memory, seconds in zip(named, memories, all_seconds, strict=True):
        if isinstance(memory, str):
            not_run[name] = memory
        elif isinstance(seconds, str):
            not_run[name] = seconds
        else:
            peak = predict_peak_bytes(memory, device, resident_bytes, copied=True)
            costs.append(predict_cost(candidate, name, seconds, 1, peak))
    if not costs:
        raise HydromelError(
            f"batching=auto: this machine runs none of the candidates ({next(iter(not_run.values()))}); use "
            "precision=float32"
        )
    best = fastest(costs, auto.max_memory_bytes)
    return {
        "chosen": best.name,
        "batch_size": best.batch_size,
        "candidates": [cost.record() for cost in costs],
        "not_run": not_run,
        "probe_seconds": time.perf_counter() - begin,
    }


def fastest(costs: Sequence[PredictedCost], max_memory_bytes: int | None) -> PredictedCost:
    """Return the cost with the most real tokens per second among those within the memory limit.

    Raises:
        HydromelError: none is within the limit.
    """
    fitting = [cost for cost in costs if max_memory_bytes is None or cost.predicted_peak_bytes <= max_memory_bytes]
    if not fitting:
        least = min(costs, key=lambda cost: cost.predicted_peak_bytes)
        raise HydromelError(
            f"batching.max_memory_bytes={max_memory_bytes}: the least that any candidate needs is "
            f"{least.predicted_peak_bytes} ({least.name}, batch_size={least.batch_size}); allow more, or try smaller "
            "batching.batch_sizes"
        )
    return max(fitting, key=lambda cost: cost.predicted_real_tokens_per_s)


def describe_advice(advice: AdviceRecord) -> str:
    """Return the choice and its reasons in one line."""
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


def with_chosen_strategy(config: RunConfig, advice: AdviceRecord) -> RunConfig:
    """Return the config with the chosen strategy in place of `auto`, under the name of `auto`."""
    candidates = config.batching["candidates"]
    assert isinstance(candidates, dict)
    chosen = with_batch_size(candidates[advice["chosen"]], advice["batch_size"])
    return config.changed(batching={**chosen, "name": config.batching["name"]})
