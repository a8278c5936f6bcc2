"""One run, from its config to its result, in the order in which data flows."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import cast

import torch

from runner.common import run_schema
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.common.records import ResultRecord
from runner.components.run_components import Components, build_strategy
from runner.config.hashes import name_of_job
from runner.config.saved import write_config
from runner.config.schema import RunConfig, name_of
from runner.data.load import arrange, describe_data, load_data
from runner.data.numericalize import Data
from runner.data.truncation import Truncation
from runner.experiment.result import finish
from runner.inference.trained import write_vocabs
from runner.interfaces import BatchingStrategy, Head, StrategyChooser
from runner.model import Model, build_model, descriptions
from runner.profiling.accounting import Clock, Memory
from runner.profiling.energy import EnergyMeter
from runner.profiling.kernels import warn_if_slow
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul
from runner.tracking.run_folder import RunFolder
from runner.tracking.sync import deliver_pending
from runner.tracking.tracker import DeliveryError, Tracker
from runner.training.checkpoint import checkpoint_path, load_checkpoint, restored
from runner.training.loop import fit
from runner.training.setup import build_optimizer, build_schedule, choose_device
from runner.training.state import Training

log = logging.getLogger(__name__)


def run_experiment(config: RunConfig, folder: Path, started: float) -> ResultRecord:
    """Train, evaluate, record, deliver.

    Args:
        folder: the run's; if it holds an unfinished run with a checkpoint, that run goes on.
        started: unix time at which the program started.

    Raises:
        HydromelError: bad input; the run is marked as failed, and what it did is kept.
    """
    components = Components.of(config)
    components.tracker.check()
    with start_folder(config, folder) as run:
        try:
            training, data, config = prepare(config, components, run, started)
            memory = Memory(training.clock.device)
            training.clock.seconds["startup"] += time.time() - started
            fit(training)
            result = finish(training, data, config, components.parts.corpus, memory.state())
        except BaseException as error:
            status = run_schema.INTERRUPTED if isinstance(error, KeyboardInterrupt) else run_schema.FAILED
            run.flush()
            run.set_status(status, str(error) or type(error).__name__)
            deliver(components.tracker, run, final=True)
            raise
        run.flush()
        run.write_result(result)
        if components.plots is not None:
            components.plots.draw(run.path)
        run.set_status(run_schema.FINISHED)
        deliver(components.tracker, run, final=True)
    _deliver_earlier(components.tracker, config)
    log.info(components.tracker.describe())
    return result


def start_folder(config: RunConfig, folder: Path) -> RunFolder:
    """Start the run's folder with its identity in it.

    Raises:
        HydromelError: it holds a finished run, or cannot be written.
    """
    if (folder / run_schema.RESULT).exists():
        raise HydromelError(f"{folder} holds a finished run; choose another hydra.run.dir")
    nodes = {"task": config.task, "dataset": config.dataset, "embedding": config.embedding, "encoder": config.encoder}
    tags = {role: config.choices.get(role) or name_of(node) for role, node in nodes.items()}
    tags |= {"batching": str(config.batching["name"]), "seed": str(config.seed), "turn": str(config.turn)}
    # what differs within a sweep comes first: MLflow cuts long names
    name = "-".join([name_of_job(config.resolved), tags["task"], tags["dataset"], tags["encoder"]])
    sweep_id = None if config.sweep.id is None else str(config.sweep.id)
    if (trial := config.sweep.trial) is not None:
        tags[run_schema.TAG_TRIAL], name = str(trial), f"trial{trial}-{name}"
    experiment = config.choices.get("experiment")
    return RunFolder.start(folder, name=name, experiment=experiment, sweep_id=sweep_id, tags=tags)


def prepare(
    config: RunConfig, components: Components, run: RunFolder, started: float
) -> tuple[Training, Data, RunConfig]:
    """Read the data, build the model, and take up an earlier checkpoint of this folder if there is one.

    Returns:
        Besides, the config with the strategy that `batching=auto` chose in place of it.
    """
    device = _prepare_machine(config)
    parts, tracker, settings = components.parts, components.tracker, config.train
    truncation = Truncation(config.max_length, config.truncate)
    data = load_data(parts, truncation, config.cache_dir)
    log.info(describe_data(name_of(config.dataset), data, truncation))
    train = arrange(parts, components.batching, data.splits["train"].to(device), config.max_length)
    model = build_model(parts, data.vocabs).to(device=device, dtype=DTYPES[config.dtype])
    for description in descriptions(model, data.splits):
        if description.line is not None:
            log.info(description.line)
    config, batching = _chosen_batching(config, components, run, model, data)
    updates_per_epoch = len(batching.updates(train.rows.host_lengths, config.seed, 0))

    training = Training(
        model=model,
        head=cast(Head, model.head),
        task=parts.task,
        metric=partial(parts.task.metric, data.vocabs),
        metric_name=settings.metric or parts.task.quality,
        strategy=batching,
        optimizer=build_optimizer(components.optimizer, model),
        schedule=build_schedule(components.schedule, settings, updates_per_epoch),
        train=train,
        valid=data.splits["valid"].to(device),
        settings=settings,
        seed=config.seed,
        bf16=config.bf16,
        run=run,
        clock=Clock(device, started),
        meter=EnergyMeter(device),
        after_evaluation=partial(_tell_epoch, tracker),
    )
    last = checkpoint_path(run.path, "last")
    if last.exists():
        training = restored(training, load_checkpoint(last, model))
        log.info("going on from epoch %d, update %d", training.progress.epoch + 1, training.progress.updates)
    write_config(config, run.path)  # only after everything is validated: a mistake must not spoil a run to be resumed
    write_vocabs(run.path, data.vocabs)
    return training, data, config


def _prepare_machine(config: RunConfig) -> torch.device:
    """Set what holds for the whole process (threads, arithmetic, allocator, seed), and return the device."""
    device = choose_device(config.device, config.precision, config.dtype)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.precision == "bf16" and device.type == "cpu":
        warn_if_slow(torch.bfloat16)
    choose_matmul(config.matmul)
    choose_malloc(config.malloc)
    torch.manual_seed(config.seed)
    return device


def _chosen_batching(
    config: RunConfig, components: Components, run: RunFolder, model: Model, data: Data
) -> tuple[RunConfig, BatchingStrategy]:
    """Return the strategy of the run, the one that `batching=auto` chooses if need be, and the config with it."""
    if not isinstance(components.batching, StrategyChooser):
        return config, components.batching
    from runner.advisor.choose import choose_strategy  # imports scipy.optimize, which other runs need not wait for

    config = choose_strategy(config, components, components.batching, run, model, data)
    return config, build_strategy(config.batching, config.plugins)


def deliver(tracker: Tracker, run: RunFolder, final: bool = False) -> None:
    """Send records; if that fails, log it and go on: the folder keeps them."""
    try:
        tracker.deliver(run.path, final)
    except DeliveryError as error:
        log.warning("warning: %s; records stay in %s, `hydromel-sync` delivers them", error, run.path)


def _deliver_earlier(tracker: Tracker, config: RunConfig) -> None:
    root = Path(config.runs_dir)
    try:
        if root.is_dir() and (count := deliver_pending(root, tracker, config.plugins)):
            log.info("delivered %d earlier run(s)", count)
    except HydromelError as error:
        log.warning("warning: %s", error)


def _tell_epoch(tracker: Tracker, t: Training, metrics: dict[str, object], loss: float) -> None:
    """One line and one delivery after an evaluation."""
    costs, progress, value = t.costs, t.progress, metrics[t.metric_name]
    tokens_per_s = costs.real_tokens / max(costs.training_seconds, 1e-9)
    positions = costs.real_tokens + costs.padded_tokens
    log.info(
        f"epoch {progress.last_epoch:3d}  updates {progress.updates:6,d}  loss {loss:8.4f}  "
        f"valid {t.metric_name} {value:8.2f}  {tokens_per_s:9,.0f} tok/s  "
        f"padding {100 * costs.padded_tokens / max(1, positions):4.1f} %  {costs.training_seconds:7.1f} s"
    )
    deliver(tracker, t.run)
