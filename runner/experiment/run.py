"""One run, from its config to its result, in the order in which data flows."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import CannotWrite
from runner.common.records import ResultRecord, shown, unbeaten_baselines
from runner.components.run_components import Components
from runner.config.hashes import job_hash, name_of_job
from runner.config.saved import saved_run, write_config
from runner.config.schema import RunConfig, name_of
from runner.distributed.environment import LostRank
from runner.distributed.ranks import ALONE, Ranks
from runner.experiment.model_card import write_model_card
from runner.experiment.preparation import prepare
from runner.experiment.result import finish
from runner.experiment.resumption import nothing_left
from runner.inference.trained import write_vocabs
from runner.model import save_files
from runner.profiling.accounting import Memory
from runner.profiling.system_monitor import SystemMonitor, check_installed
from runner.terminal.progress import stage
from runner.tracking.run_folder import OthersFolder, RunFolder, read_result
from runner.tracking.sync import deliver_pending, mark_undelivered, unmark
from runner.tracking.tracker import NoTracker, Tracker, deliver_or_warn
from runner.training.checkpoint import checkpoint_path
from runner.training.loop import fit
from runner.training.watch import watched

log = logging.getLogger(__name__)


def run_experiment(config: RunConfig, folder: Path, started: float, ranks: Ranks = ALONE) -> ResultRecord | None:
    """Train, evaluate, record and deliver one run, and return the content of its result.json.

    The result is logged before plots and the delivery to the tracker, which can be repeated later.

    If the folder holds a run with a checkpoint, that run is resumed; a finished one only if the config leaves something
    to train. `started` is the program's start in Unix time. Of several ranks only the first writes and returns a
    result; the others only train, and return None.

    Raises:
        HydromelError: bad input. A run that has started is marked as failed, and its records so far are kept; one that
            cannot start, or be resumed, with this config leaves the folder as it was.
    """
    components = Components.of(config)
    config = components.config
    if not ranks.is_first:
        with OthersFolder.open(folder) as others:
            training = prepare(config, components, others, started, ranks).training
            fit(training)
            training.alone()  # the first rank tests the whole model
        return None
    components.tracker.check()
    check_installed(config.system_metrics_s)
    root = Path(config.runs_dir)
    with RunFolder.open(folder) as run:  # locked, so that no other process finishes the run meanwhile
        result = read_result(run.path) if nothing_left(config, folder) else None
        if result is None:
            result = _train_and_test(config, components, run, started, ranks)
        else:
            _begin(run, config, components.tracker)
        log.info(summary(result, folder))
        # The result is written. Whatever fails from here on, such as plots on a full disk, can be repeated: it only
        # warns.
        try:
            if components.plots is not None:
                with stage("drawing plots"):
                    components.plots.draw(run.path)
        except (HydromelError, OSError) as error:
            log.warning("warning: the plots of %s were not drawn: %s", run.path, error)
        try:
            write_model_card(run.path)
        except HydromelError as error:
            log.warning("warning: the model card was not written: %s", error)
        try:
            run.set_status(run_schema.FINISHED)
        except CannotWrite as error:
            log.warning("warning: %s; the run has finished all the same", error)
        delivered = _deliver(run.path, components.tracker, root)
    if delivered:
        try:  # records of earlier runs, which the tracker missed
            if count := deliver_pending(root, components.tracker, config.plugins):
                log.info("delivered %d earlier run(s)", count)
        except HydromelError as error:
            log.warning("warning: %s", error)
    log.info(components.tracker.describe())
    return result


def summary(result: ResultRecord, folder: Path) -> str:
    """Return the last lines of a run: its figures, and a warning if a simple model is at least as good."""
    quality = result["quality"]["metric"]
    metrics = result["metrics"]
    split, figures = ("test", metrics["test"]) if "test" in metrics else ("valid", metrics["valid"])
    speed = result["speed"].get("real_tokens_per_s", math.nan)  # missing in a record that was read
    rate = f"{speed:,.0f} real tokens/s" if speed == speed else "too few updates to time"
    unit, figure = result["quality"].get("unit", ""), figures[quality]
    assert isinstance(figure, float)
    value = shown(figure, unit)
    line = f"{result['name']}: {split} {quality} {value}, {rate} -> {folder}"
    unbeaten = ", ".join(f"{name} {shown(figure, unit)}" for name, figure in unbeaten_baselines(result).items())
    warning = f"warning: test {quality} {value} is not better than that of the simplest models: {unbeaten}"
    return f"{line}\n{warning}" if unbeaten else line


def _train_and_test(
    config: RunConfig, components: Components, run: RunFolder, started: float, ranks: Ranks
) -> ResultRecord:
    """Train and evaluate a run, write its result and return it; if that fails, `run.json` says why.

    The run starts once the config and the data are known to be valid, so a mistake in them leaves no failed run.
    """
    prepared = prepare(config, components, run, started, ranks)
    config, training = prepared.config, prepared.training
    if not run.is_new and not _continues(run, config):
        aside = run.set_aside()
        _note(config, aside, components.tracker)
    run.set_result_aside()
    write_vocabs(run.path, prepared.data.vocabs)
    save_files(training.model, run.path / run_schema.MODEL_FILES)
    _begin(run, config, components.tracker)
    try:
        memory = Memory(training.clock.device)
        training.clock.seconds["startup"] += time.time() - started
        with watched(training), SystemMonitor(run.path / run_schema.SYSTEM, config.system_metrics_s):
            fit(training)
        result = finish(replace(prepared, training=training.alone()), memory.state())
        run.flush()
        run.write_result(result)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | LostRank)
        status = run_schema.INTERRUPTED if stopped else run_schema.FAILED
        for write in (run.flush, partial(run.set_status, status, str(error) or type(error).__name__)):
            with contextlib.suppress(CannotWrite):  # the first error is the one to report
                write()
        _deliver(run.path, components.tracker, Path(config.runs_dir))
        raise
    return result


def _deliver(folder: Path, tracker: Tracker, root: Path) -> bool:
    """Deliver the records of a run that has ended; a failure is a warning, and the note in `root` stays."""
    with stage("delivering records"):
        delivered = deliver_or_warn(tracker, folder, final=True)
    if delivered:
        unmark(root, folder)
    return delivered


def _begin(run: RunFolder, config: RunConfig, tracker: Tracker) -> None:
    """Record that the run starts, or is resumed, with this config.

    Raises:
        HydromelError: the folder cannot be written.
    """
    write_config(config, run.path)
    nodes = {"task": config.task, "dataset": config.dataset, "embedding": config.embedding, "encoder": config.encoder}
    tags = {role: config.choices.get(role) or name_of(node) for role, node in nodes.items()}
    tags |= {"batching": str(config.batching["name"]), "seed": str(config.seed), "turn": str(config.turn)}
    # The options that differ within a sweep come first, since MLflow truncates long names.
    name = "-".join([name_of_job(config.resolved), tags["task"], tags["dataset"], tags["encoder"]])
    sweep_id = None if config.sweep.id is None else str(config.sweep.id)
    if (trial := config.sweep.trial) is not None:
        tags[run_schema.TAG_TRIAL], name = str(trial), f"trial{trial}-{name}"
    experiment = config.choices.get("experiment")
    run.begin(name=name, experiment=experiment, sweep_id=sweep_id, tags=tags, tracker=config.tracker)
    _note(config, run.path, tracker)


def _note(config: RunConfig, folder: Path, tracker: Tracker) -> None:
    if not isinstance(tracker, NoTracker):
        mark_undelivered(Path(config.runs_dir), folder)


def _continues(run: RunFolder, config: RunConfig) -> bool:
    """Return True if this is the run in the folder: it has a checkpoint, or the same options and did not fail."""
    if checkpoint_path(run.path, "last").exists():
        return True
    try:
        saved = saved_run(run.path, config.plugins)
    except HydromelError:
        return False
    return run.run["status"] != run_schema.FAILED and job_hash(saved.resolved) == job_hash(config.resolved)
