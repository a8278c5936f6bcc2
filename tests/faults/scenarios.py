"""Small runs of several strategies, tasks and optimisers, and the commands that begin and read them."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import random
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from runner.config.saved import write_config
from runner.config.schema import RunConfig
from runner.experiment import result
from runner.experiment.job import run_job
from runner.terminal.command_line import exit_code
from runner.tracking import mlflow_store
from tests.faults.forked import Work, command
from tests.helpers.composed import label_files, run, run_config, tag_files

_QUICK = (
    *("threads=1", "device=cpu", "cache_dir=null", "tracker=jsonl", "tracker.path=shared.jsonl", "run_plots=null"),
    *("baselines=false", "embedding.size=4", "train.epochs=2", "train.checkpoint_every=3", "train.log_every=2"),
    *("train.warmup_updates=2", "train.rehearse=false", "batching.batch_size=6"),
)
PLOTS = "run_plots={_target_: reporting.plots.run.RunPlots}"


@dataclass(frozen=True)
class Scenario:
    """A run to be made: its data (`tag`, `classify` or `lm`) and its options."""

    name: str
    data: str
    options: tuple[str, ...]

    def arguments(self) -> list[str]:
        """Return the options of a run, as the command takes them."""
        return [*DATA[self.data], *_QUICK, *self.options]


_TAG = ("encoder=rnn", "encoder.hidden=4", "encoder.dropout=0.3")
_LM = ("encoder=lstm", "encoder.hidden=4")
_WINDOWS = ("batching.batch_size=3", "batching.window=8", "batching.half_rate=0.3", "batching.spread=2.0")
_AVERAGED = ("optimizer=nt_asgd", "optimizer.lr=1.0", "optimizer.patience=1", "train.epochs=4")
SCENARIOS = (
    Scenario("padmask", "tag", (*_TAG, "batching=padmask", "baselines=true", "schedule=plateau")),
    Scenario("packed", "classify", ("encoder=conv", "encoder.filters=4", "batching=packed", "task.dropout=0.2", PLOTS)),
    Scenario("bucketed", "tag", (*_TAG, "batching=bucketed", "task.head=crf", "optimizer=sgd")),
    Scenario("stream", "lm", (*_LM, "task.unit=stream", "batching=stream", *_WINDOWS, "encoder.dropout=0.2")),
    Scenario("nt_asgd", "lm", (*_LM, "batching=packed", *_AVERAGED, "encoder.weight_drop=0.2")),
)
DATA: dict[str, list[str]] = {}  # options that read each data set, once `prepare` has written it


def prepare(folder: Path) -> None:
    """Write the data sets below `folder`, and work there from now on, at a home that is nobody's."""
    for name in ("tag", "classify", "lm", "home", "tmp", "references"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    DATA["tag"] = tag_files(folder / "tag", rows=36)
    DATA["classify"] = label_files(folder / "classify", rows=36)
    rng = random.Random(1)
    for split, count in (("train", 40), ("valid", 12), ("test", 12)):
        lines = (
            " ".join(rng.choices(["the", "cat", "sat", "on", "a", "mat", "."], k=1 + rng.randrange(9)))
            for _ in range(count)
        )
        (folder / "lm" / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    DATA["lm"] = ["task=lm", "dataset=text", f"data_dir={folder / 'lm'}", *splits]
    for data, line in (("tag", "Ann went to Rome"), ("classify", "a good it"), ("lm", "the cat sat")):
        (folder / f"{data}.txt").write_text(f"{line}\n" * 2, encoding="utf-8")
    os.environ |= {"HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    os.environ |= {"XDG_STATE_HOME": str(folder / "home"), "XDG_DATA_HOME": str(folder / "home")}
    os.chdir(folder)


COMMANDS = {
    "train": "runner.cli.train",
    "predict": "runner.cli.predict",
    "evaluate": "runner.cli.evaluate",
    "generate": "runner.cli.generate",
    "inspect": "runner.cli.inspect",
    "plan": "runner.cli.plan",
    "sync": "runner.cli.sync",
    "compare": "reporting.compare",
}


def warm_up(folder: Path) -> None:
    """Import all that the commands import, some of it by use, so that children need not."""
    for module in COMMANDS.values():
        importlib.import_module(module)
    torch.set_num_threads(1)
    for place, data in enumerate(("tag", "lm")):
        quick = (*DATA[data], *_QUICK, "encoder=rnn", "encoder.hidden=4", "train.epochs=1", "baselines=true", PLOTS)
        run(folder / f"warm{place}", "tracker=jsonl", *quick)
    result.arithmetic = lambda training: None  # type: ignore[assignment]  # it times the machine, for most of a run
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # nobody answers there
        mlflow_store.connect("http://127.0.0.1:1", "x", None, 1.0)
    gc.collect()
    gc.freeze()  # children then share the memory of what is there


def hydromel(name: str, *arguments: str) -> Work:
    """Return work that runs a command by its short name, such as `predict`."""
    return command(importlib.import_module(COMMANDS[name]).main, *arguments)


def new_run(scenario: Scenario, folder: Path, **changes: object) -> Work:
    """Return work that makes a run in a new folder, beside which the tracker's file is, as a job of a sweep is made.

    Args:
        changes: values at the top level of the config.
    """
    config = _composed(scenario).changed(**{"tracker": tracker_beside(folder)} | changes)

    def work() -> int:
        write_config(config, folder)
        return run_job(folder, time.time())

    return partial(exit_code, work)


def tracker_beside(folder: Path) -> dict[str, object]:
    """Return the node of a tracker that writes to a file beside a run's folder."""
    return {"_target_": "runner.tracking.tracker.JsonlTracker", "path": str(folder.with_name("shared.jsonl"))}


@functools.cache
def _composed(scenario: Scenario) -> RunConfig:
    return run_config(*scenario.arguments()).changed(sweep={"id": None})
