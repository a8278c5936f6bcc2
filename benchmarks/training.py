"""Training of taggers and classifiers: real (non-padding) tokens/s beside models written by hand, and what a run costs.

    python benchmarks/training.py --data DATA --threads 1 2 --json benchmarks/results/training.json

`tagger` is experiment=wnut17 with a CRF, `conv` experiment=sst2_conv, `lstm` experiment=sst2_lstm. A peer
(`training_peers.py`) has our sizes, data, vectors and first weights, and shuffled batches of as many rows; before
anything is timed, both must give the same loss for the same rows without dropout (not where padding is taken for text),
and have as many numbers to train. Ours are the configured model, optimiser and clipping under each batching, without
the bookkeeping of a run. Each has a process of its own; turns of some updates go round, the first are left out, and a
ratio is the median of the rounds' ratios to `by hand`. All make as many updates; their mean loss in the last turn shows
that they learn. With one thread there is a ratio by the processes' own time, too, of which others that keep the machine
busy take nothing.

The second table is of whole runs (`runner.experiment`) of one epoch: the run's own tokens/s beside a bare loop over the
same updates (of the same losses, which is checked) that takes turns with it, and the run's seconds by phase
(`training_runs.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from training_ours import WORKS, Ours, compose, started
from training_peers import PEERS, optimizer_of, trained_numbers
from training_runs import cost_of_run

from runner.embeddings.vectors import Vectors
from runner.model import parameter_count
from runner.provenance import cpu_name, git_commit

PEER = "by hand"
OURS = {
    "bucketed": ["batching=bucketed"],
    "bucketed, malloc=keep": ["batching=bucketed", "malloc=keep"],
    "padmask": ["batching=padmask"],
    "packed": ["batching=packed"],
}
WARM_UP = 2  # rounds
SAME_LOSS = 1e-4  # how far the two may be apart, relative
Step = Callable[[int], tuple[Tensor, int]]  # number of an update -> its loss, its real tokens


def peer_step(ours: Ours, work: str, name: str) -> Step:
    """The usual loop over shuffled rows; fails if the peer is not the same model."""
    peer = PEERS[work][name](ours.model, ours.train)
    config, rows_at_once = ours.config, ours.config["batching"]["batch_size"]
    rate_of_vectors = next(iter(one.rates["rows"] for one in ours.model.modules() if isinstance(one, Vectors)))
    optimizer = optimizer_of(peer, config["optimizer"]["lr"], rate_of_vectors)
    assert trained_numbers(peer) == parameter_count(ours.model), "another number of parameters"
    apart = apart_from(peer, ours)
    assert name != PEER or apart < SAME_LOSS, f"another model: losses are {apart:.1e} apart"
    lengths, order = ours.train.rows.host_lengths, np.random.default_rng(1)
    batches = iter(())

    def step(number: int) -> tuple[Tensor, int]:
        nonlocal batches
        rows = next(batches, None)
        if rows is None:
            batches = iter(np.split(order.permutation(len(lengths)), range(rows_at_once, len(lengths), rows_at_once)))
            rows = next(batches)
        optimizer.zero_grad()
        loss = peer(*peer.collate(rows.tolist()))
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), config["train"]["clip_norm"])
        optimizer.step()
        return loss.detach(), int(lengths[rows].sum())

    return step


def apart_from(peer: Any, ours: Ours) -> float:
    """How far the losses of the same rows, without dropout, are from one another, relative."""
    rows = ours.rows(0)
    (batch,) = ours.batching.micro_batches(ours.train, rows)
    ours.model.eval()
    peer.eval()
    with torch.no_grad():
        loss = ours.model.head.loss(ours.model(batch, None)[0], batch)
        apart = abs(float(peer(*peer.collate(rows.tolist()))) / (float(loss.total) / loss.count) - 1)
    ours.model.train()
    peer.train()
    return apart


def compete(options: argparse.Namespace, work: str, threads: int) -> list[dict[str, Any]]:
    """Real tokens/s of each, in processes that take turns, to and fro."""
    workers = {name: started(compete_worker, options, work, threads, name) for name in (*PEERS[work], *OURS)}
    for pipe in workers.values():
        pipe.recv()  # all are ready
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for turn in range(WARM_UP + options.rounds):
        for name in list(workers)[:: 1 if turn % 2 else -1]:
            workers[name].send(options.updates)
            turns[name].append(workers[name].recv())
    for pipe in workers.values():
        pipe.send(0)

    def rates(name: str, clock: str) -> list[float]:
        return [turn["tokens"] / turn[clock] for turn in turns[name][WARM_UP:]]

    def ratio(name: str, clock: str) -> float:
        return median(mine / peers for mine, peers in zip(rates(name, clock), rates(PEER, clock), strict=True))

    return [
        {
            "work": work,
            "threads": threads,
            "name": name,
            "real_tokens_per_s": median(rates(name, "seconds")),
            "fastest_tokens_per_s": max(rates(name, "seconds")),
            "ratio": ratio(name, "seconds"),
            "ratio_of_fastest": max(rates(name, "seconds")) / max(rates(PEER, "seconds")),
            "ratio_by_cpu_time": ratio(name, "cpu_seconds") if threads == 1 else None,
            "first_loss": turns[name][0]["loss"],
            "last_loss": turns[name][-1]["loss"],
            "updates": options.updates * len(turns[name]),
        }
        for name in workers
    ]


def compete_worker(pipe: Connection, options: argparse.Namespace, work: str, threads: int, name: str) -> None:
    """Make as many updates as are asked for, again and again; 0 ends it."""
    torch.set_num_threads(threads)
    ours = Ours(compose(work, options, *OURS.get(name, ["batching=padmask"])))
    step = ours.step if name in OURS else peer_step(ours, work, name)
    pipe.send("ready")
    numbers = count()
    while updates := pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        losses, tokens = zip(*(step(next(numbers)) for _ in range(updates)), strict=True)
        mean = float(torch.stack(losses).mean())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send({"seconds": wall, "cpu_seconds": cpu, "tokens": sum(tokens), "loss": mean})


def show(measured: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    console = Console(width=160)
    columns = ("", "threads", "", "real tokens/s", "ratio", "of fastest", "by CPU time", "loss, first turn", "last")
    table = Table(*columns, box=box.MARKDOWN)
    for one in measured:
        ratios = (one["ratio"], one["ratio_of_fastest"], one["ratio_by_cpu_time"] or math.nan)
        figures = [f"{one['real_tokens_per_s']:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        losses = [f"{one[key]:.3f}" for key in ("first_loss", "last_loss")]
        table.add_row(one["work"], str(one["threads"]), one["name"], *figures, *losses)
    console.print(table)
    phases = ("data", "forward", "backward", "optimizer", "evaluation", "tracking")
    table = Table("", "threads", "bare loop", "run", "cost %", "of fastest", *phases, box=box.MARKDOWN)
    for one in runs:
        figures = [f"{one[key]:,.0f}" for key in ("bare_tokens_per_s", "run_tokens_per_s")]
        figures += [f"{one[key]:.1f}" for key in ("cost_percent", "cost_percent_of_fastest")]
        table.add_row(one["work"], str(one["threads"]), *figures, *(f"{one['seconds'][phase]:.2f}" for phase in phases))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the published data sets")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=9, help="0: whole runs alone")
    parser.add_argument("--updates", type=int, default=25, help="of each, a round")
    parser.add_argument("--runs", type=int, default=4, help="whole runs, of an epoch each")
    parser.add_argument("--json", type=Path, help="figures are written there, in place of former ones of the same work")
    options = parser.parse_args()
    measured: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for threads in options.threads:
        for work in options.works:
            before = os.getloadavg()[0]
            found = compete(options, work, threads) if options.rounds else []
            cost = []
            if options.runs:
                cost = [cost_of_run(options, work, threads)]
            facts = circumstances(options, before)
            measured += [{**one, **facts} for one in found]
            runs += [{**one, **facts} for one in cost]
            if options.json is not None:
                keep(options.json, measured, runs)
    show(measured, runs)


def circumstances(options: argparse.Namespace, load_before: float) -> dict[str, Any]:
    """Under which figures were measured."""
    load = {"before": round(load_before, 2), "after": round(os.getloadavg()[0], 2)}
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "load_average": load}
    facts = {"git_commit": git_commit(), "torch": torch.__version__, **machine, "rounds": options.rounds}
    return facts | {"updates_a_round": options.updates, "runs_each": options.runs}


def keep(path: Path, measured: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """Write figures to the file; former ones of the same work and threads make way, others stay."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for key, new in (("measured", measured), ("runs", runs)):
        again = {(one["work"], one["threads"]) for one in new}
        found[key] = [one for one in found.get(key, []) if (one["work"], one["threads"]) not in again] + new
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
