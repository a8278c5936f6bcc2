"""What strategies would cost, found out before training: real tokens per second by a probe, memory by an estimate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runner.advisor.memory_estimate import Memory, MemoryEstimate
from runner.advisor.speed_probe import Candidate, Probe
from runner.common.errors import HydromelError
from runner.common.records import AdviceRecord, CandidateRecord
from runner.config.schema import RunConfig
from runner.interfaces import StrategyChooser
from runner.profiling import accounting
from runner.ragged.batch import Batch

MIB = 2**20


@dataclass(frozen=True)
class Predicted:
    """What one strategy would cost.

    Attributes:
        name: of the strategy.
        batch_size: examples of an update, or None.
        layout: of its batches.
        predicted_real_tokens_per_s: of training: data, forward, backward, optimiser.
        predicted_epoch_seconds: of the same, for one epoch.
        predicted_peak_bytes: what `memory.peak_bytes` of result.json would say.
        padding_share: of all places in memory, 0 to 1.
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


def predicted(one: Candidate, name: str, seconds: float, epochs: int, peak_bytes: int) -> Predicted:
    """The prediction for a candidate whose updates, of so many epochs, take so many `seconds`."""
    lengths = one.train.rows.host_lengths
    tokens, padded = epochs * int(lengths.sum()), sum(one.batching.padding(lengths, one.updates).values())
    return Predicted(
        name=name,
        batch_size=one.batching.batch_size,
        layout=one.batching.layout,
        predicted_real_tokens_per_s=tokens / seconds,
        predicted_epoch_seconds=seconds / epochs,
        predicted_peak_bytes=peak_bytes,
        padding_share=padded / max(1, tokens + padded),
    )


def peak_bytes(memory: Memory, device: torch.device, resident_bytes: int, copied: bool) -> int:
    """What `runner.profiling.accounting.Memory` would measure.

    Args:
        resident_bytes: of this process after the estimate, whose batches have loaded the kernels' code; its gradients
            and the optimiser's state are there still. Not used on a GPU, where the allocator knows of nothing else.
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
    estimate: MemoryEstimate,
    probe: Callable[[], Probe],
) -> AdviceRecord:
    """The `advice` of result.json: what is predicted of every candidate, and which one is chosen.

    Args:
        estimate: on a copy of the model.
        probe: makes one, once memory has been estimated.

    Raises:
        HydromelError: none stays within `max_memory_bytes`.
    """
    begin, lengths, device = time.perf_counter(), train.rows.host_lengths, train.rows.device
    named = [(name, Candidate(one, train, one.updates(lengths, seed, 0))) for name, one in auto.strategies()]
    memories = [estimate.where_it_runs(one.batching, train, others, one.updates) for _, one in named]
    resident_bytes = accounting.Memory(device).before
    seconds = probe().predict([one for _, one in named], auto.probe_seconds)
    found, not_run = [], {}
    for (name, one), memory, its_seconds in zip(named, memories, seconds, strict=True):
        if isinstance(memory, str) or isinstance(its_seconds, str):
            not_run[name] = memory if isinstance(memory, str) else str(its_seconds)
        else:
            peak = peak_bytes(memory, device, resident_bytes, copied=True)
            found.append(predicted(one, name, its_seconds, 1, peak))
    if not found:
        raise HydromelError(
            f"batching=auto: this machine runs none of the candidates ({next(iter(not_run.values()))}); use "
            "precision=float32"
        )
    best = fastest(found, auto.max_memory_bytes)
    return {
        "chosen": best.name,
        "batch_size": best.batch_size,
        "candidates": [one.record() for one in found],
        "not_run": not_run,
        "probe_seconds": time.perf_counter() - begin,
    }


def fastest(found: Sequence[Predicted], max_memory_bytes: int | None) -> Predicted:
    """The one of most real tokens/s among those that stay within a limit."""
    fit = [one for one in found if max_memory_bytes is None or one.predicted_peak_bytes <= max_memory_bytes]
    if not fit:
        least = min(found, key=lambda one: one.predicted_peak_bytes)
        raise HydromelError(
            f"batching.max_memory_bytes={max_memory_bytes}: the least that any candidate needs is "
            f"{least.predicted_peak_bytes} ({least.name}, batch_size={least.batch_size}); allow more, or try smaller "
            "batching.batch_sizes"
        )
    return max(fit, key=lambda one: one.predicted_real_tokens_per_s)


def sentence(advice: AdviceRecord) -> str:
    """What was chosen and why, in one line."""
    rates = [
        f"{one['name']}{'' if one['batch_size'] is None else ' ' + str(one['batch_size'])} "
        f"{one['predicted_real_tokens_per_s']:,.0f} ({one['predicted_peak_bytes'] / MIB:,.0f} MiB)"
        for one in sorted(advice["candidates"], key=lambda one: -one["predicted_real_tokens_per_s"])
    ]
    size = "" if advice["batch_size"] is None else f" with batch_size={advice['batch_size']}"
    return (
        f"batching=auto goes on as {advice['chosen']}{size}; real tokens/s (and peak memory) predicted in "
        f"{advice['probe_seconds']:.1f} s: {', '.join(rates)}{_not_run(advice)}"
    )


def _not_run(advice: AdviceRecord) -> str:
    """Which candidates this machine could not run, and why."""
    missing = advice.get("not_run", {})
    return f"; not run here: {', '.join(missing)} ({next(iter(missing.values()))})" if missing else ""


def with_chosen_strategy(config: RunConfig, advice: AdviceRecord) -> RunConfig:
    """Return the config with the chosen strategy in place of `auto`, under the name of `auto`."""
    auto: Mapping[str, Any] = config.batching
    chosen = auto["candidates"][advice["chosen"]]
    plan = {**chosen["plan"], "batch_size": advice["batch_size"]}
    return config.changed(batching={**chosen, "name": auto["name"], "batch_size": advice["batch_size"], "plan": plan})
