"""The preparation of a run: machine, data, model, batching strategy, and the checkpoint of a run that is resumed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.components.run_components import Components, build_strategy
from runner.config.schema import MachineSettings, RunConfig, Shard, TrainSettings, name_of
from runner.data.counts import describe_counts
from runner.data.numericalize import TARGET, Data, arrange, describe_data, load_data
from runner.data.truncation import Truncation
from runner.distributed.ranks import ALONE, Ranks
from runner.experiment.init_from import Source
from runner.experiment.resumption import (
    changes,
    check_data,
    check_options,
    check_plans,
    check_rates,
    limits_of,
    origin_of,
)
from runner.inference.trained import read_vocabs
from runner.interfaces import BatchingStrategy, Corpus, HasBaseWeights, HasLayers, Schedule, StrategyChooser
from runner.model import (
    Model,
    build_model,
    descriptions,
    learn_scale,
    parameter_count,
    read_splits,
    saved_files,
    with_pieces,
)
from runner.profiling.accounting import Clock
from runner.profiling.energy import EnergyMeter
from runner.profiling.kernels import warn_if_slow
from runner.profiling.malloc import choose_malloc, growth
from runner.profiling.matmul import choose_matmul
from runner.ragged.batch import Batch
from runner.ragged.shapes import tokens_in
from runner.text.features import BringsVocabulary, TokenFeature
from runner.text.vocab import Vocab
from runner.tracking.run_folder import RunFolder
from runner.training.checkpoint import Checkpoint, checkpoint_path, resume
from runner.training.setup import build_optimizer, check_ranks, check_row_dropout, choose_device
from runner.training.state import Progress, Training

if TYPE_CHECKING:
    from runner.distributed.shards import Shards

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train."""

    training: Training
    data: Data  # all splits, on the host
    corpus: Corpus
    config: RunConfig  # with the strategy that `batching=auto` chose in place of `auto`


def prepare(
    config: RunConfig, components: Components, run: RunFolder, started: float, ranks: Ranks = ALONE
) -> Prepared:
    """Read the data and build the model; if the folder has a checkpoint, continue from it.

    The `components` are those of the config, and `started` is the Unix time at which the program started. Nothing is
    written: a mistake must neither leave a folder nor spoil that of a run that is to be resumed. Of several `ranks` all
    prepare the same; the first one reads the data alone, and the others then find them in the cache.
    """
    parts, settings = components.parts, config.train
    last = checkpoint_path(run.path, "last")
    checkpoint = Checkpoint.read(last) if last.exists() else None
    if checkpoint is not None:
        not_chosen = isinstance(components.batching, StrategyChooser)
        check_plans(run.path, checkpoint.origin)
        check_options(run.path, checkpoint.origin.config, config, not_chosen)
    if ranks.world > 1 and isinstance(components.batching, StrategyChooser):
        raise HydromelError(f"ranks={ranks.world}: batching=auto times one process; name a strategy, or use ranks=1")
    device = _prepare_machine(config, config.seed, ranks)
    truncation = Truncation(config.max_length, config.truncate)
    source = Source.read(config, parts.task.causal) if checkpoint is None else None
    given = None if source is None else source.vocabs
    if checkpoint is not None:
        given = _kept_vocabs(run.path, config, parts.features)
    with ranks.first_then_others():
        data = load_data(parts, truncation, config.cache_dir, given)
    if checkpoint is not None:
        check_data(run.path, checkpoint.origin, data, config.data_dir)
    log.info(describe_data(name_of(config.dataset), data))
    for line in describe_counts(data.counts, truncation):
        log.info(line)
    train = arrange(parts, components.batching, data.splits["train"].to(device), config.max_length)
    files = saved_files(run.path) if checkpoint is not None else None
    model = build_model(parts, data.vocabs, files).to(device=device, dtype=DTYPES[config.dtype])
    if settings.row_dropout:
        check_row_dropout(model)
    if checkpoint is None:
        learn_scale(model, train)
        run.set_init_from(None if source is None else source.fill(model, config, data.vocabs))
    else:
        checkpoint.fill(model)
    cache_dir = None if config.cache_dir is None else Path(config.cache_dir).expanduser()
    for line in read_splits(model, {**data.splits, "train": train}, cache_dir):
        log.info(line)
    train = with_pieces(model, train)
    for description in descriptions(model, data.splits):
        if description.line is not None:
            log.info(description.line)
    scored = data.vocabs[TARGET].known if not parts.task.causal and device.type == "cpu" else 0
    if memory := growth(config.malloc, scored, settings.eval_batch_size):
        log.info(memory)
    config, strategy = _choose_batching(config, components, run, model, data)
    check_ranks(ranks, model, strategy, train.rows.n_rows)
    ranks.spread(model)
    shards = _shards(config.shard, model, ranks, train)
    per_epoch = len(strategy.updates(train.cost_lengths, config.seed, 0))
    schedule = _schedule(components, settings, per_epoch)
    training = Training(
        model=model,
        task=parts.task,
        measures=parts.measures,
        metric_name=settings.metric or parts.measures.main,
        vocabs=data.vocabs,
        strategy=strategy,
        optimizer=build_optimizer(
            components.optimizer, model, settings.decay_vectors, None if shards is None else shards.own
        ),
        schedule=schedule,
        train=train,
        valid=with_pieces(model, data.splits["valid"].to(device)),
        settings=settings,
        seed=config.seed,
        bf16=config.bf16,
        run=run,
        clock=Clock(device, started),
        meter=EnergyMeter(device),
        tracker=components.tracker,
        origin=origin_of(config, data),
        ranks=ranks,
        shards=shards,
        progress=Progress(threads=config.threads),
    )
    if checkpoint is not None:
        with checkpoint.state_errors():
            limits = limits_of(checkpoint.origin, settings)
        before = _schedule(components, limits, per_epoch)
        check_rates(run.path, before, schedule, checkpoint.progress.updates)
        training = resume(training, checkpoint)
        progress = training.progress
        if config.threads is not None:
            progress.threads = config.threads
        rest = "; nothing is left to train" if progress.is_over(settings) else ""
        log.info("resuming in epoch %d, after %d updates%s", progress.epoch + 1, progress.updates, rest)
        run.add_changes(changes(checkpoint.origin.config, config, checkpoint.progress.updates))
    return Prepared(training, data, parts.corpus, config)


def _shards(wanted: Shard, model: Model, ranks: Ranks, train: Batch) -> Shards[Model] | None:
    """Divide a model between ranks, as the option `shard` says; None: each rank keeps all of it."""
    if wanted == "none":
        return None
    if ranks.world == 1:
        log.info("shard=full: one rank has the whole model; ranks=N divides it between N")
        return None
    from runner.distributed.shards import Shards  # imports much of torch, which other runs do not need

    for part in model.modules():
        if isinstance(part, HasBaseWeights) and not part.keeps_base:
            part.base_hash()  # while the base is whole: it keeps the hash
    lengths = tokens_in(train.cost_lengths)
    parts = [part for part in model.modules() if isinstance(part, HasLayers)]
    layers = [layer for part in parts for layer in part.layers_in_turn(lengths)]
    total, in_turn = parameter_count(model), sum(map(parameter_count, layers))
    passes = f"{total - in_turn:,} for a whole pass, the others layer by layer" if layers else "all of them for a pass"
    log.info(f"shard=full: each of {ranks.world} ranks keeps its part of {total:,} parameters, and gathers {passes}")
    return Shards(model, layers, ranks)


def _kept_vocabs(folder: Path, config: RunConfig, features: Mapping[str, TokenFeature]) -> dict[str, Vocab] | None:
    """Return the vocabularies that a resumed run took from elsewhere, as they were when it started; None: it took none.

    They are from the files of a pretrained model or from the run of `init_from`, which may have changed since.
    """
    names = [
        name
        for name, feature in features.items()
        if config.init_from is not None or isinstance(feature, BringsVocabulary)
    ]
    return {name: vocab for name, vocab in read_vocabs(folder, []).items() if name in names} if names else None


def _schedule(components: Components, settings: TrainSettings, per_epoch: int) -> Schedule:
    total = per_epoch * settings.epochs
    return components.schedule(total_updates=min(total, settings.max_updates or total), updates_per_epoch=per_epoch)


def _prepare_machine(machine: MachineSettings, seed: int, ranks: Ranks) -> torch.device:
    """Set the options of the whole process (threads, arithmetic, allocator, seed), and return the device."""
    device = choose_device(machine.device, machine.precision, machine.dtype)
    cores = os.cpu_count() or 1
    if machine.threads is not None:
        if machine.threads > cores:
            log.warning(
                "warning: threads=%d, but this machine has %d cores: threads wait for others", machine.threads, cores
            )
        torch.set_num_threads(machine.threads)
    elif ranks.world > 1:
        torch.set_num_threads(max(1, cores // ranks.world))
    if machine.precision == "bf16" and device.type == "cpu":
        warn_if_slow(torch.bfloat16)
    choose_matmul(machine.matmul)
    choose_malloc(machine.malloc)
    torch.manual_seed(seed)
    return device


def _choose_batching(
    config: RunConfig, components: Components, run: RunFolder, model: Model, data: Data
) -> tuple[RunConfig, BatchingStrategy]:
    """Return the strategy of the run and the config with it; `batching=auto` chooses it here."""
    if not isinstance(components.batching, StrategyChooser):
        return config, components.batching
    from runner.advisor.advisor import choose_strategy  # imports scipy.optimize, which other runs do not need

    config = choose_strategy(config, components.parts.task, components.batching, run, model, data)
    return config, build_strategy(config.batching, config.plugins)
