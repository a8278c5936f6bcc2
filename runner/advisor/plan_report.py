"""Find the figures of each strategy on a data set, without training, for `hydromel-plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from runner.advisor.advisor import Predicted, peak_bytes, predicted
from runner.advisor.choose import TrainingCost
from runner.advisor.memory_estimate import Memory, MemoryEstimate
from runner.advisor.speed_probe import Candidate, Probe
from runner.batching.plan import digest
from runner.batching.shuffle_quality import Share, ShuffleQuality, answer_shares, correlation, measure
from runner.common.arrays import FloatArray
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.components.run_components import build_strategy, optimizer_factory
from runner.config.schema import RunConfig, name_of
from runner.data.load import arrange, describe_data, load_data
from runner.data.numericalize import TARGET, Data
from runner.data.truncation import Truncation
from runner.interfaces import BatchingStrategy, Task
from runner.model import build_model
from runner.profiling import accounting
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import Updates
from runner.training.setup import choose_device


@dataclass(frozen=True)
class Planned:
    """What one strategy would do.

    Attributes:
        name: what reports call it.
        batch_size: examples of an update, or None.
        layout: of its batches.
        digest: of the updates of all epochs planned; equal digests, equal updates.
        quality: of its plan.
        padding: by cause, the share (0 to 1) of all places in memory.
        memory: at the peak of training, estimated; None where this machine cannot run it.
        predicted: what it would cost on this machine; None where nothing was probed, or it cannot be run.
        not_run: what this machine lacks to run it; empty where it runs.
    """

    name: str
    batch_size: int | None
    layout: str
    digest: str
    quality: ShuffleQuality
    padding: dict[str, float]
    memory: Memory | None
    predicted: Predicted | None = None
    not_run: str = ""


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        choices: the names chosen for the config's groups.
        data: one line about the data set.
        lengths: of training rows as published: how many, mean, longest.
        length_tells_answer: `quality.correlation` over all training rows.
        epochs: how many were planned.
        planned: of each strategy.
        device: where speed was probed; None where it was not.
        left_out: name -> why it does not fit.
    """

    choices: dict[str, str | None]
    data: str
    lengths: dict[str, float]
    length_tells_answer: float | None
    epochs: int
    planned: list[Planned]
    left_out: dict[str, str]
    device: str | None = None


def plan(configs: Sequence[RunConfig], left_out: Mapping[str, str], epochs: int, probe_seconds: float | None) -> Report:
    """Read the data, build the model, and plan so many epochs under every config.

    Args:
        configs: one or more that differ in `batching` alone.
        left_out: strategies that are to be named as not fitting, and why.
        probe_seconds: time batches for about so long, to predict speed; None: do not.

    Raises:
        HydromelError: bad input, or no strategy fits.
    """
    config = configs[0]
    device = _device(config, probe_seconds is not None)
    parts = ModelParts.of(config, config.plugins)
    cost = TrainingCost(optimizer_factory(config), config.train, config.bf16)
    truncation = Truncation(config.max_length, config.truncate)
    data = load_data(parts, truncation, config.cache_dir)
    train = data.splits["train"]
    answers = row_answers(parts.task, data, train)
    model = build_model(parts, data.vocabs).to(dtype=DTYPES[config.dtype])
    memory = cost.memory_estimate(parts.task, data, model)
    planned, candidates, unfit = _plan_each(configs, parts, data, answers, memory, epochs, device)
    unfit = {**left_out, **unfit}
    if not planned:
        raise HydromelError(next(iter(unfit.values())))
    if probe_seconds is not None:
        probe = cost.probe(parts.task, model.to(device))
        planned = _with_speed(planned, candidates, probe, probe_seconds, epochs)
    lengths = train.rows.host_lengths
    return Report(
        choices={name: chosen for name, chosen in config.choices.items() if name != "batching"},
        data=describe_data(name_of(config.dataset), data, truncation),
        lengths={"rows": len(lengths), "mean": float(lengths.mean()), "longest": int(lengths.max())},
        length_tells_answer=None if answers is None else correlation(lengths, answers, None),
        epochs=epochs,
        planned=planned,
        left_out=unfit,
        device=None if probe_seconds is None else str(device),
    )


def _plan_each(
    configs: Sequence[RunConfig],
    parts: ModelParts,
    data: Data,
    answers: FloatArray | None,
    memory: MemoryEstimate,
    epochs: int,
    device: torch.device,
) -> tuple[list[Planned], list[Candidate], dict[str, str]]:
    """Plan every strategy that fits; return also what can be probed of each, and why the others do not fit."""
    planned, candidates, unfit = [], [], {}
    train = data.splits["train"]
    others = [split for name, split in data.splits.items() if name != "train"]
    for config in configs:
        try:
            batching = build_strategy(config.batching, config.plugins)
            arranged = arrange(parts, batching, train, config.max_length)
        except HydromelError as error:
            unfit[str(config.choices["batching"])] = str(error)
            continue
        of_rows = answers if arranged is train else None
        updates = [batching.updates(arranged.rows.host_lengths, config.seed, epoch) for epoch in range(epochs)]
        planned.append(plan_one(batching, arranged, others, of_rows, updates, memory))
        candidates.append(Candidate(batching, arranged.to(device), [update for epoch in updates for update in epoch]))
    return planned, candidates, unfit


def _with_speed(
    planned: Sequence[Planned], candidates: Sequence[Candidate], probe: Probe, probe_seconds: float, epochs: int
) -> list[Planned]:
    """Return the plans with what the probe predicts of each."""
    resident_bytes = accounting.Memory(probe.device).before
    seconds = probe.predict(candidates, probe_seconds)
    timed = []
    for plain, candidate, its_seconds in zip(planned, candidates, seconds, strict=True):
        if isinstance(its_seconds, str):
            timed.append(replace(plain, not_run=its_seconds))
        elif plain.memory is None:
            timed.append(plain)
        else:
            peak = peak_bytes(plain.memory, probe.device, resident_bytes, copied=False)
            timed.append(replace(plain, predicted=predicted(candidate, plain.name, its_seconds, epochs, peak)))
    return timed


def plan_one(
    batching: BatchingStrategy,
    train: Batch,
    others: list[Batch],
    answers: FloatArray | None,
    updates: list[Updates],
    memory: MemoryEstimate,
) -> Planned:
    """The figures of one strategy.

    Args:
        train: as `batching.arrange` gave it.
        others: the splits that are evaluated.
        answers: (B, C) of its rows, or None.
        updates: of each epoch.
    """
    lengths = train.rows.host_lengths
    together = [update for epoch in updates for update in epoch]
    padded = batching.padding(lengths, together)
    places = len(updates) * int(lengths.sum()) + sum(padded.values())
    estimate = memory.where_it_runs(batching, train, others, together)
    return Planned(
        name=batching.name,
        batch_size=batching.batch_size,
        layout=batching.layout,
        digest=digest(together),
        quality=measure(updates, lengths, answers, batching.batch_size),
        padding={cause: tokens / max(1, places) for cause, tokens in padded.items()},
        memory=None if isinstance(estimate, str) else estimate,
        not_run=estimate if isinstance(estimate, str) else "",
    )


def row_answers(task: Task, data: Data, train: Batch) -> FloatArray | None:
    """(B, C) the shares of each answer in a row of train; None for language models."""
    if task.causal:
        return None
    n_answers = len(data.vocabs[TARGET])
    if isinstance(train.target, Ragged):
        return answer_shares(train.target.tokens().numpy(), train.target.rows.host_lengths, n_answers)
    return answer_shares(train.target.numpy(), np.ones(len(train.index), dtype=np.int64), n_answers)


def as_dict(report: Report) -> dict[str, Any]:
    """Plain values, as `--json` writes them: with shares beside what chance gives and with totals."""
    content = asdict(report)
    for one, shown in zip(report.planned, content["planned"], strict=True):
        if one.memory is not None:
            shown["memory"] |= {name: getattr(one.memory, name) for name in ("training_bytes", "evaluation_bytes")}
        for name, figure in vars(one.quality).items():
            if isinstance(figure, Share):
                shown["quality"][name]["times_chance"] = figure.times_chance
    return content


def _device(config: RunConfig, probed: bool) -> torch.device:
    """Return the device to probe on, the machine made ready for it; a GPU need not be here where nothing is probed."""
    if config.resume is not None:
        raise HydromelError(f"resume={config.resume}: a plan is made from options, not from a run; leave it out")
    device = choose_device(config.device if probed else "cpu", config.precision, config.dtype)
    if probed:
        choose_matmul(config.matmul)
        choose_malloc(config.malloc)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return device
