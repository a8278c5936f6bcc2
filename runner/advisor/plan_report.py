"""The figures of each strategy on a data set, computed without training, for `hydromel-plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.advisor.advisor import memory_estimator, predict_costs, speed_probe
from runner.advisor.memory_estimate import MemoryUse
from runner.advisor.speed_probe import Candidate
from runner.batching.costs import computed_padding
from runner.batching.plan import digest
from runner.batching.shuffle_quality import Share, ShuffleQuality, class_shares, correlation, measure
from runner.common.arrays import FloatArray
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.common.records import CandidateRecord
from runner.components.found_options import completed
from runner.components.model_parts import ModelParts
from runner.components.run_components import build_strategy
from runner.config.schema import RunConfig, name_of
from runner.data.counts import describe_counts
from runner.data.numericalize import TARGET, Data, arrange, describe_data, load_data
from runner.data.truncation import Truncation
from runner.interfaces import Task
from runner.model import assume_read, build_model, with_pieces
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul
from runner.ragged.batch import Batch
from runner.ragged.scored import scored_predictions
from runner.ragged.shapes import tokens_in
from runner.ragged.updates import Updates
from runner.terminal.progress import track
from runner.training.setup import choose_device


@dataclass(frozen=True)
class PlannedStrategy:
    """The figures of one strategy."""

    name: str  # the strategy's name in reports
    batch_size: int | None  # maximum number of rows of an update; None: something else limits updates
    layout: str  # the layout of its batches
    digest: str  # hash of the updates of all planned epochs; equal digests mean equal updates
    quality: ShuffleQuality  # statistics of how well its plan shuffles
    padding: dict[str, float]  # by cause, the share of padding among all positions in memory, 0 to 1
    memory: MemoryUse | None  # the estimated memory; None if this machine cannot run the strategy
    predicted: CandidateRecord | None = None  # the predicted cost here; None without a probe, or if it cannot be run
    not_run: str = ""  # the kernel that this machine lacks to run it; empty if it runs


@dataclass(frozen=True)
class PlanReport:
    """The figures of all strategies on one data set."""

    choices: dict[str, str | None]  # the names chosen for the config's groups
    data: str  # one line about the data set
    lengths: dict[str, float]  # number, mean length and longest length of the training rows, as the corpus has them
    pieces: dict[str, float] | None  # mean and longest number of pieces of these rows, if the model reads pieces
    length_target_correlation: float | None  # correlation of length and class over all training rows
    epochs: int  # number of planned epochs
    planned: list[PlannedStrategy]  # the figures of each strategy
    left_out: dict[str, str]  # by name, the reason why a strategy does not fit
    device: str | None = None  # the device of the probe; None: speed was not probed
    ranks: int = 1  # processes that would make each update together; the figures are those of one with all rows


def plan_strategies(
    configs: Sequence[RunConfig], left_out: Mapping[str, str], epochs: int, probe_seconds: float | None
) -> PlanReport:
    """Read the data, build the model, and plan some epochs under every config.

    Args:
        configs: one or more configs that differ in `batching` only.
        left_out: by name, the reason why further strategies do not fit.
        epochs: number of epochs to plan.
        probe_seconds: approximate time of the probe of speed, in seconds; None: no probe.

    Raises:
        HydromelError: bad input, or no strategy fits.
    """
    config = configs[0]
    if config.init_from is not None:
        raise HydromelError(f"init_from={config.init_from} has no effect on a plan, which is of a new model")
    device = _device(config, probe_seconds is not None)
    config, parts = completed(config, ModelParts.of(config, config.plugins), config.plugins)
    truncation = Truncation(config.max_length, config.truncate)
    data = load_data(parts, truncation, config.cache_dir)
    train = data.splits["train"]
    classes = class_shares_of(parts.task, data, train)
    model = build_model(parts, data.vocabs).to(dtype=DTYPES[config.dtype])
    assume_read(model)
    others = [with_pieces(model, split) for name, split in data.splits.items() if name != "train"]
    estimator = memory_estimator(config, parts.task, data, model)
    planned, candidates, unfit = [], [], dict(left_out)
    for variant in track(configs, "planning", len(configs)):
        try:
            batching = build_strategy(variant.batching, variant.plugins)
            arranged = with_pieces(model, arrange(parts, batching, train, variant.max_length))
        except HydromelError as error:
            unfit[str(variant.choices["batching"])] = str(error)
            continue
        updates = [Updates.of(batching.updates(arranged.cost_lengths, variant.seed, epoch)) for epoch in range(epochs)]
        of_rows = classes if arranged.rows is train.rows else None
        candidate = Candidate(
            batching.name, batching, arranged, Updates.of([update for epoch in updates for update in epoch])
        )
        memory = estimator.estimate_or_missing_kernel(batching, arranged, others, candidate.updates)
        planned.append(_planned(candidate, of_rows, updates, memory))
        candidates.append(replace(candidate, train=arranged.to(device)))
    if not planned:
        raise HydromelError(next(iter(unfit.values())))
    if probe_seconds is not None:
        probe = speed_probe(config, parts.task, model.to(device))
        memories = [strategy.memory or strategy.not_run for strategy in planned]
        costs = predict_costs(candidates, memories, probe, probe_seconds, epochs, copied=False)
        planned = [
            replace(strategy, not_run=cost) if isinstance(cost, str) else replace(strategy, predicted=cost)
            for strategy, cost in zip(planned, costs, strict=True)
        ]
    lengths, pieces = tokens_in(train.lengths), with_pieces(model, train).pieces
    counts = None if pieces is None else tokens_in(pieces.lengths)
    return PlanReport(
        choices={name: chosen for name, chosen in config.choices.items() if name != "batching"},
        data="; ".join([describe_data(name_of(config.dataset), data), *describe_counts(data.counts, truncation)]),
        lengths={"rows": len(lengths), "mean": float(lengths.mean()), "longest": int(lengths.max())},
        pieces=None if counts is None else {"mean": float(counts.mean()), "longest": int(counts.max())},
        length_target_correlation=None if classes is None else correlation(lengths, classes, None),
        epochs=epochs,
        planned=planned,
        left_out=unfit,
        device=None if probe_seconds is None else str(device),
        ranks=config.ranks,
    )


def _planned(
    candidate: Candidate, classes: FloatArray | None, updates: list[Updates], memory: MemoryUse | str
) -> PlannedStrategy:
    """Return the figures of one strategy, except its speed, from the `updates` of each epoch.

    `classes` are (B, C) from `class_shares_of`; None if rows have no classes, or were rearranged.
    """
    batching, lengths = candidate.batching, tokens_in(candidate.train.cost_lengths)
    padded = computed_padding(batching, candidate.train, candidate.updates)
    places = len(updates) * int(lengths.sum()) + sum(padded.values())
    return PlannedStrategy(
        name=batching.name,
        batch_size=batching.batch_size,
        layout=batching.layout,
        digest=digest(candidate.updates),
        quality=measure(updates, lengths, classes, batching.batch_size),
        padding={cause: tokens / max(1, places) for cause, tokens in padded.items()},
        memory=None if isinstance(memory, str) else memory,
        not_run=memory if isinstance(memory, str) else "",
    )


def class_shares_of(task: Task, data: Data, train: Batch) -> FloatArray | None:
    """Return the share of each class in each row of the training set, (B, C); None for language models.

    In regression, the numbers take the place of the shares, (B, 1).
    """
    if task.causal:
        return None
    if isinstance(train.target, Tensor) and train.target.is_floating_point():
        return train.target.double().cpu().numpy()[:, None]
    n_classes = data.vocabs[TARGET].known
    if isinstance(train.target, Tensor) and train.target.ndim == 2:  # several labels per row, filled up by -1
        ids = train.target.cpu().numpy()
        return class_shares(ids[ids >= 0], (ids >= 0).sum(axis=1), n_classes)
    _, counted = scored_predictions(torch.zeros(int(train.targets_per_row.sum())), train)
    return class_shares(counted.targets_on_host().astype(np.int64), counted.targets_per_row, n_classes)


def as_dict(report: PlanReport) -> dict[str, Any]:
    """Return the report as plain values for `--json`, with its properties: totals, and shares relative to chance."""
    content = asdict(report)
    for strategy, plain in zip(report.planned, content["planned"], strict=True):
        if (memory := strategy.memory) is not None:
            plain["memory"] |= {"training_bytes": memory.training_bytes, "evaluation_bytes": memory.evaluation_bytes}
        for name, figure in vars(strategy.quality).items():
            if isinstance(figure, Share):
                plain["quality"][name]["times_chance"] = figure.times_chance
    return content


def _device(config: RunConfig, probed: bool) -> torch.device:
    """Prepare the machine and return the device of the probe; without a probe, it is the CPU."""
    if config.resume is not None:
        raise HydromelError(f"resume={config.resume}: a plan describes a config, not an existing run; leave it out")
    device = choose_device(config.device if probed else "cpu", config.precision, config.dtype)
    if probed:
        choose_matmul(config.matmul)
        choose_malloc(config.malloc)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return device
