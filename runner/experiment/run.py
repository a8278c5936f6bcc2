"""One run, from its config to its result: everything is built here, in the order in which data flows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from runner.batching.auto import Auto
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.hashes import name_of_job
from runner.config.instantiate import build, check_options
from runner.config.saved import write_config
from runner.config.schema import Settings, check_root
from runner.data.load import arrange, describe_data, load_data, name_of
from runner.data.numericalize import Data
from runner.embeddings.char import describe_characters, line_of_cuts
from runner.embeddings.pretrained import describe_vectors, line_of
from runner.experiment.result import finish
from runner.inference.trained import write_vocabs
from runner.interfaces import Head
from runner.model import Model, build_model
from runner.profiling.accounting import Clock, Memory
from runner.profiling.energy import EnergyMeter
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul
from runner.tracking.run_folder import RunFolder
from runner.tracking.sync import deliver_pending
from runner.tracking.tracker import DeliveryError, Tracker
from runner.training.checkpoint import checkpoint_path, load_checkpoint, restore, save_checkpoint, snapshot
from runner.training.loop import fit
from runner.training.setup import build_optimizer, build_schedule, choose_device
from runner.training.state import Training

Config = dict[str, Any]
Say = Callable[[str], None]
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def run_experiment(config: Config, folder: Path, started: float, say: Say) -> dict[str, Any]:
    """Train, evaluate, record, deliver.

    Args:
        config: resolved, as in resolved.yaml.
        folder: the run's; if it holds an unfinished run with a checkpoint, that run goes on.
        started: unix time at which the program started.
        say: prints one line.

    Raises:
        HydromelError: bad input; the run is marked as failed, and what it did is kept.
    """
    check_options(check_root, config, "")
    tracker: Tracker = build(config["tracker"], "tracker", {}, config["plugins"])
    tracker.check()
    plots = None if config["run_plots"] is None else build(config["run_plots"], "run_plots", {}, config["plugins"])
    with start_folder(config, folder) as run:
        try:
            training, data, config = prepare(config, run, started, tracker, say)
            memory = Memory(training.clock.device)
            training.clock.seconds["startup"] += time.time() - started
            fit(training)
            result = finish(training, data, config, memory.state())
        except BaseException as error:
            status = run_schema.INTERRUPTED if isinstance(error, KeyboardInterrupt) else run_schema.FAILED
            run.flush()
            run.set_status(status, str(error) or type(error).__name__)
            deliver(tracker, run, say, final=True)
            raise
        run.flush()
        run.write_result(result)
        if plots is not None:
            plots.draw(run.path)
        run.set_status(run_schema.FINISHED)
        deliver(tracker, run, say, final=True)
    _deliver_earlier(tracker, Path(config["runs_dir"]), say)
    say(tracker.describe())
    return result


def start_folder(config: Config, folder: Path) -> RunFolder:
    """The run's folder with its identity in it."""
    if (folder / run_schema.RESULT).exists():
        raise HydromelError(f"{folder} holds a finished run; choose another hydra.run.dir")
    choices = config["choices"]
    tags = {
        name: str(choices.get(name) or name_of(config, name)) for name in ("task", "dataset", "embedding", "encoder")
    }
    tags |= {"batching": config["batching"]["name"], "seed": str(config["seed"]), "turn": str(config["turn"])}
    # what differs within a sweep comes first: MLflow cuts long names
    name = "-".join([name_of_job(config), tags["task"], tags["dataset"], tags["encoder"]])
    sweep_id, trial = config["sweep"]["id"], config["sweep"].get("trial")
    if trial is not None:
        tags[run_schema.TAG_TRIAL], name = str(trial), f"trial{trial}-{name}"
    return RunFolder.start(folder, name=name, experiment=choices.get("experiment"), sweep_id=sweep_id, tags=tags)


def prepare(
    config: Config, run: RunFolder, started: float, tracker: Tracker, say: Say
) -> tuple[Training, Data, Config]:
    """Build everything, and take up an earlier checkpoint of this folder if there is one.

    Returns:
        Besides, the config with the strategy that `batching=auto` chose in place of it.
    """
    plugins = config["plugins"]
    check_options(Settings, config["train"], "train")
    settings = Settings(**config["train"])
    device = choose_device(config)
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    choose_matmul(config["matmul"])
    choose_malloc(config["malloc"])
    torch.manual_seed(config["seed"])

    task = build(config["task"], "task", {}, plugins)
    batching = build(config["batching"], "batching", {}, plugins)
    data = load_data(config, task)
    say(describe_data(config, data))
    train = arrange(config, batching, data.splits["train"].to(device))
    model = build_model(config, task, data.vocabs, plugins).to(device=device, dtype=_DTYPES[config["dtype"]])
    _tell_words(model, data, say)
    if isinstance(batching, Auto):
        from runner.advisor.choose import settle  # imports scipy.optimize, which other runs need not wait for

        config = settle(config, batching, run, model, task, data, build_optimizer, say)
        batching = build(config["batching"], "batching", {}, plugins)
    updates_per_epoch = len(batching.updates(train.rows.host_lengths, config["seed"], 0))

    training = Training(
        model=model,
        head=cast(Head, model.head),
        task=task,
        metric=lambda: task.metric(data.vocabs),
        metric_name=settings.metric or task.quality,
        batching=batching,
        optimizer=build_optimizer(config, model),
        schedule=build_schedule(config, settings, updates_per_epoch),
        train=train,
        valid=data.splits["valid"].to(device),
        settings=settings,
        seed=config["seed"],
        bf16=config["precision"] == "bf16",
        run=run,
        clock=Clock(device, started),
        meter=EnergyMeter(device),
        save=lambda name: save_checkpoint(checkpoint_path(run.path, name), model, snapshot(training)),
        after_evaluation=lambda metrics, loss: _tell_epoch(training, tracker, say, metrics, loss),
    )
    last = checkpoint_path(run.path, "last")
    if last.exists():
        restore(training, load_checkpoint(last, model))
        say(f"going on from epoch {training.progress.epoch + 1}, update {training.progress.updates}")
    write_config(config, run.path)  # only now: what a resume gets wrong must not spoil the run that it was meant for
    write_vocabs(run.path, data.vocabs)
    return training, data, config


def _tell_words(model: Model, data: Data, say: Say) -> None:
    """Lines on what pretrained vectors cover, and on words that are cut to fit."""
    for described in describe_vectors(model, data.splits):
        say(line_of(described))
    for described in describe_characters(model, data.splits):
        if cuts := line_of_cuts(described):
            say(cuts)


def deliver(tracker: Tracker, run: RunFolder, say: Say, final: bool = False) -> None:
    """Send records; if that fails, say so and go on: the folder keeps them."""
    try:
        tracker.deliver(run.path, final)
    except DeliveryError as error:
        say(f"warning: {error}; records stay in {run.path}, `hydromel-sync` delivers them")


def _deliver_earlier(tracker: Tracker, root: Path, say: Say) -> None:
    try:
        if root.is_dir() and (count := deliver_pending(root, tracker)):
            say(f"delivered {count} earlier run(s)")
    except HydromelError as error:
        say(f"warning: {error}")


def _tell_epoch(t: Training, tracker: Tracker, say: Say, metrics: dict[str, Any], loss: float) -> None:
    """One line and one delivery after an evaluation."""
    account, progress = t.account, t.progress
    tokens_per_s = account.real_tokens / max(account.training_seconds, 1e-9)
    positions = account.real_tokens + account.padded_tokens
    say(
        f"epoch {progress.last_epoch:3d}  updates {progress.updates:6,d}  loss {loss:8.4f}  "
        f"valid {t.metric_name} {metrics[t.metric_name]:8.2f}  {tokens_per_s:9,.0f} tok/s  "
        f"padding {100 * account.padded_tokens / max(1, positions):4.1f} %  {account.training_seconds:7.1f} s"
    )
    deliver(tracker, t.run, say)
