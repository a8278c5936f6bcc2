"""One run, from its config to its result, in the order in which data flows."""

from __future__ import annotations

import contextlib
import logging
import time
from functools import partial
from pathlib import Path

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import CannotWrite
from runner.common.records import ResultRecord
from runner.components.run_components import Components
from runner.config.hashes import name_of_job
from runner.config.schema import RunConfig, name_of
from runner.experiment.preparation import prepare
from runner.experiment.result import finish
from runner.experiment.resumption import nothing_left
from runner.profiling.accounting import Memory
from runner.tracking.run_folder import RunFolder, read_result
from runner.tracking.sync import deliver_pending
from runner.tracking.tracker import deliver_or_warn
from runner.training.checkpoint import checkpoint_path
from runner.training.loop import fit

log = logging.getLogger(__name__)


def run_experiment(config: RunConfig, folder: Path, started: float) -> ResultRecord:
    """Train, evaluate, record and deliver one run, and return the content of its result.json.

    If the folder holds a run with a checkpoint, that run is resumed; a finished one, if the config leaves it something
    to train. `started` is the program's start in Unix time.

    Raises:
        HydromelError: bad input. The run is marked as failed, and its records so far are kept; a run that cannot be
            resumed with this config stays as it was.
    """
    components = Components.of(config)
    components.tracker.check()
    only_to_end = nothing_left(config, folder)
    with start_folder(config, folder) as run:
        result = read_result(run.path) if only_to_end else None
        if result is None:
            result = _train_and_test(config, components, run, started)
        # The result is written, so from here on nothing fails that can be made again (a full disk).
        try:
            if components.plots is not None:
                components.plots.draw(run.path)
        except (HydromelError, OSError) as error:
            log.warning("warning: the plots of %s were not drawn: %s", run.path, error)
        try:
            run.set_status(run_schema.FINISHED)
        except CannotWrite as error:
            log.warning("warning: %s; the run has finished all the same", error)
        deliver_or_warn(components.tracker, run.path, final=True)
    try:  # records of earlier runs, which the tracker missed
        root = Path(config.runs_dir)
        if root.is_dir() and (count := deliver_pending(root, components.tracker, config.plugins)):
            log.info("delivered %d earlier run(s)", count)
    except HydromelError as error:
        log.warning("warning: %s", error)
    log.info(components.tracker.describe())
    return result


def _train_and_test(config: RunConfig, components: Components, run: RunFolder, started: float) -> ResultRecord:
    """Train and evaluate a run, write its result and return it; if that fails, `run.json` says why."""
    prepared = None
    try:
        prepared = prepare(config, components, run, started)
        training = prepared.training
        memory = Memory(training.clock.device)
        training.clock.seconds["startup"] += time.time() - started
        fit(training)
        result = finish(prepared, memory.state())
        run.flush()
        run.write_result(result)
    except BaseException as error:
        if prepared is None and checkpoint_path(run.path, "last").exists():
            run.restore()
            raise
        status = run_schema.INTERRUPTED if isinstance(error, KeyboardInterrupt) else run_schema.FAILED
        for write in (run.flush, partial(run.set_status, status, str(error) or type(error).__name__)):
            with contextlib.suppress(CannotWrite):  # the first error is the one to report
                write()
        deliver_or_warn(components.tracker, run.path, final=True)
        raise
    return result


def start_folder(config: RunConfig, folder: Path) -> RunFolder:
    """Create or reopen the folder of a run, with the run's identity in it.

    Raises:
        HydromelError: another process writes the folder, or it cannot be written.
    """
    nodes = {"task": config.task, "dataset": config.dataset, "embedding": config.embedding, "encoder": config.encoder}
    tags = {role: config.choices.get(role) or name_of(node) for role, node in nodes.items()}
    tags |= {"batching": str(config.batching["name"]), "seed": str(config.seed), "turn": str(config.turn)}
    # The options that differ within a sweep come first, since MLflow truncates long names.
    name = "-".join([name_of_job(config.resolved), tags["task"], tags["dataset"], tags["encoder"]])
    sweep_id = None if config.sweep.id is None else str(config.sweep.id)
    if (trial := config.sweep.trial) is not None:
        tags[run_schema.TAG_TRIAL], name = str(trial), f"trial{trial}-{name}"
    experiment = config.choices.get("experiment")
    return RunFolder.start(folder, name=name, experiment=experiment, sweep_id=sweep_id, tags=tags)
