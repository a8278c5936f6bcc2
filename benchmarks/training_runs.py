"""The cost of a whole run compared with a bare loop over the same updates, for `bench.py`.

With one CPU thread all seconds are CPU time, which other work on the machine hardly affects.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from contest import received, started, summary
from training_ours import Config, Ours, compose

from runner.common.run_schema import METRICS
from runner.config.schema import RunConfig
from runner.experiment.run import run_experiment
from runner.model import device_of
from runner.profiling import accounting
from runner.profiling.accounting import Memory


def run_worker(pipe: Connection, threads: int, epochs: int, work: str, data: str, *more: str) -> None:
    """Make a whole run of `epochs` epochs and a bare loop over the same updates, in turns."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 and "device=cpu" in more else time.perf_counter
    accounting.time = SimpleNamespace(perf_counter=clock, time=time.time)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        store = ["tracker=mlflow", f"tracker.uri=sqlite:///{folder}/mlflow.db", f"runs_dir={folder}"]
        extras = [
            "predictions=false",
            "baselines=false",
            "run_plots=null",
            f"train.epochs={epochs}",
            f"threads={threads}",
            "train.log_every=1",
        ]
        config = compose(work, data, *store, *extras, *more)
        for number in count():
            if not pipe.recv():
                return
            both = {}
            for which in ("bare", "run") if number % 2 else ("run", "bare"):
                both[which] = bare(config, clock) if which == "bare" else whole_run(config, Path(folder) / str(number))
            losses = both["bare"].pop("losses"), both["run"].pop("losses")
            assert np.allclose(*losses, rtol=1e-2), "the bare loop and the run made different updates"
            pipe.send(both)


def bare(config: Config, clock: Callable[[], float]) -> dict[str, Any]:
    """Run all epochs, or `max_updates` updates, in a bare loop; the first updates are not timed, as in a run."""
    ours = Ours(config)
    ours.model.train()
    losses, tokens = [], 0
    updates = len(ours.batching.updates(ours.train.cost_lengths, config["seed"], 0))
    memory = Memory(device_of(ours.model))
    limit = config["train"]["max_updates"] or config["train"]["epochs"] * updates
    for number in range(limit):
        if number == config["train"]["warmup_updates"]:
            waited_for(ours)
            tokens, begin = 0, clock()
        loss, these, _ = ours.step(number)
        losses.append(loss)
        tokens += these
    values = torch.stack(losses).tolist()
    rate = tokens / (clock() - begin)
    return {"real_tokens_per_s": rate, "memory": memory.state(), "losses": values}


def waited_for(ours: Ours) -> None:
    """Wait for a GPU, so that earlier work is not timed."""
    if ours.train.rows.device.type == "cuda":
        torch.cuda.synchronize()


def whole_run(config: Config, folder: Path) -> dict[str, Any]:
    result = run_experiment(RunConfig.of(config), folder, time.time())
    records = map(json.loads, (folder / METRICS).read_text().splitlines())
    losses = [one["metrics"]["train/loss"] for one in records if "train/loss" in one["metrics"]]
    rate = result["speed"]["real_tokens_per_s"]
    return {
        "real_tokens_per_s": rate,
        "memory": result["memory"],
        "seconds": result["seconds"],
        "losses": losses,
    }


def cost_of_run(work: str, epochs: int, data: str, threads: int, rounds: int, *more: str) -> dict[str, Any]:
    """Return how much slower in percent a run is than the bare loop, its seconds by phase, and the memory of both."""
    pipe = started(run_worker, threads, epochs, work, data, *more)
    made = []
    for _ in range(1 + rounds):  # the first round warms up
        pipe.send(1)
        made.append(received(pipe, work))
    pipe.send(0)
    timed = made[1:]
    rates = {name: [one[name]["real_tokens_per_s"] for one in timed] for name in ("bare", "run")}
    costs = [100 * (1 - run / alone) for run, alone in zip(rates["run"], rates["bare"], strict=True)]
    return {
        "work": work,
        "epochs": epochs,
        "bare_tokens_per_s": summary(rates["bare"]),
        "run_tokens_per_s": summary(rates["run"]),
        "cost_percent": summary(costs),
        "peak_bytes": {name: median(one[name]["memory"]["peak_bytes"] for one in timed) for name in ("bare", "run")},
        "seconds": {
            phase: median(one["run"]["seconds"][phase] for one in timed) for phase in timed[0]["run"]["seconds"]
        },
    }
