"""Predict the cost of training with a strategy: speed from a probe, memory from an estimate."""

from __future__ import annotations

from collections.abc import Sequence

from runner.advisor.memory_estimate import MemoryEstimator, MemoryUse
from runner.advisor.speed_probe import Candidate, SpeedProbe
from runner.common.records import CandidateRecord
from runner.components.measures import Measures
from runner.components.run_components import optimizer_factory
from runner.config.schema import RunConfig
from runner.data.numericalize import Data
from runner.interfaces import Task
from runner.model import Model
from runner.profiling import accounting
from runner.training.setup import build_optimizer


def memory_estimator(config: RunConfig, task: Task, data: Data, model: Model) -> MemoryEstimator:
    """Return an estimator of a run's memory, which trains this model; it is on the CPU."""
    return MemoryEstimator(
        model,
        task,
        metric=lambda: Measures.of(task).start(data.vocabs),
        optimizer=build_optimizer(optimizer_factory(config), model),
        bf16=config.bf16,
        eval_batch_size=config.train.eval_batch_size,
    )


def speed_probe(config: RunConfig, task: Task, model: Model) -> SpeedProbe:
    """Return a probe of a run's speed, which trains this model."""
    optimizer = build_optimizer(optimizer_factory(config), model)
    return SpeedProbe(model, task, optimizer, config.train.clip_norm, config.bf16)


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
        probe: of speed, on the device of training; it takes about `probe_seconds`.
        copied: whether memory was estimated on a copy of the model.
    """
    # The batches of the estimate have loaded the kernels' code, and its gradients and optimiser state are still there.
    # On a GPU this is not used, since its allocator counts tensors only.
    resident_bytes = accounting.Memory(probe.device).before
    costs: list[CandidateRecord | str] = []
    for candidate, memory, seconds in zip(candidates, memories, probe.predict(candidates, probe_seconds), strict=True):
        if isinstance(memory, str) or isinstance(seconds, str):
            costs.append(memory if isinstance(memory, str) else str(seconds))
            continue
        peak_bytes = max(memory.update_bytes, memory.scoring_bytes)
        if probe.device.type == "cuda":
            peak_bytes += memory.staying_bytes
        else:
            peak_bytes += resident_bytes - memory.gradient_bytes - copied * memory.parameter_bytes
        lengths, batching = candidate.train.rows.host_lengths, candidate.batching
        tokens, padded = epochs * int(lengths.sum()), sum(batching.padding(lengths, candidate.updates).values())
        costs.append(
            {
                "name": candidate.name,
                "batch_size": batching.batch_size,
                "layout": batching.layout,
                "predicted_real_tokens_per_s": tokens / seconds,
                "predicted_epoch_seconds": seconds / epochs,
                "predicted_peak_bytes": peak_bytes,
                "padding_share": padded / max(1, tokens + padded),
            }
        )
    return costs
