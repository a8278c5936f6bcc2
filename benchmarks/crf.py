"""Compare the CRF with pytorch-crf: negative log-likelihood, gradients and decoding, on the same tensors.

    python benchmarks/crf.py --threads 1 2 --json benchmarks/results/crf.json

A unit of work is the loss of a batch, its gradients with respect to the tags' scores and the transitions, and the best
paths. Scores are float32. pytorch-crf takes padded scores and a mask. Hydromel is timed with both layouts; the index
maps of the rows, which a recurrent encoder would have made already, are made anew each time.

The two are interleaved. A ratio is that of medians, or of the fastest repeats, which are more reliable on a busy
machine. In `uneven`, lengths are log-normal around T/2, with one row of length T, as in a shuffled batch; in `equal`,
all rows have length T, so packing saves nothing.

With `--device cuda` the device is synchronised after each part. `--clock cpu` with one thread is for machines that are
busy with other work; it says nothing about two threads. `apart` is the largest relative difference of the losses;
`peak_bytes` is the memory that a unit of work adds to the process.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchcrf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from runner.common.arrays import IntArray
from runner.layers.crf.chain import AllowedTransitions
from runner.layers.crf.crf import Crf
from runner.profiling.accounting import Memory
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows
from runner.tracking.provenance import cpu_name

BATCHES, WIDTHS, TAGS = (32, 128), (25, 50), (9, 17, 50)
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
PARTS = ("loss", "gradients", "paths")
THEIRS, OURS = "pytorch-crf", ("packed", "padded")


@dataclass(frozen=True)
class Case:
    """A size of batch: B rows, T tokens in the longest, C tags."""

    batch: int
    width: int
    tags: int
    lengths: str
    threads: int
    clock: str
    device: str


class Work:
    """The same scores, gold tags and transitions for both implementations."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(1)
        self.clock, self.device = case.clock, torch.device(case.device)
        self.lengths = lengths_of(case)
        self.ours = Crf(case.tags, AllowedTransitions.allow_all(case.tags), "none").to(self.device)
        self.theirs = torchcrf.CRF(case.tags, batch_first=True).to(self.device)
        pairs = zip(
            (self.theirs.start_transitions, self.theirs.transitions, self.theirs.end_transitions),
            (self.ours.start, self.ours.transitions, self.ours.end),
            strict=True,
        )
        for their, our in pairs:
            their.data.copy_(our.data.normal_())
        self.packed = (2 * torch.randn(int(self.lengths.sum()), case.tags)).to(self.device)
        self.answers = torch.randint(case.tags, (len(self.packed),)).to(self.device)
        rows = Rows(self.lengths, self.device)
        self.padded = Ragged(self.packed, rows, "packed").pad().values
        self.padded_answers = Ragged(self.answers, rows, "packed").pad().values
        self.mask = rows.mask

    def run_ours(self, layout: Layout) -> tuple[list[float], Tensor]:
        """Return the seconds of each part, and the loss."""
        start = self._now()
        values = (self.packed if layout == "packed" else self.padded).detach().requires_grad_()
        scores = Ragged(values, Rows(self.lengths, self.device), layout)
        loss = self.ours.negative_log_likelihood(scores, self.answers).sum()
        return self._rest(start, loss, self.ours, lambda: self.ours.decode(scores))

    def run_theirs(self) -> tuple[list[float], Tensor]:
        start = self._now()
        scores = self.padded.detach().requires_grad_()
        loss = -self.theirs(scores, self.padded_answers, mask=self.mask, reduction="sum")
        return self._rest(start, loss, self.theirs, lambda: self.theirs.decode(scores, mask=self.mask))

    def _rest(
        self, start: float, loss: Tensor, module: torch.nn.Module, decode: Callable[[], object]
    ) -> tuple[list[float], Tensor]:
        forward = self._now()
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = self._now()
        with torch.no_grad():
            decode()
        return [forward - start, backward - forward, self._now() - backward], loss.detach()

    def _now(self) -> float:
        """Return the time once the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return CLOCKS[self.clock]()


def lengths_of(case: Case) -> IntArray:
    if case.lengths == "equal":
        return np.full(case.batch, case.width)
    drawn = np.random.default_rng(1).lognormal(np.log(case.width / 2), 0.5, case.batch)
    lengths = np.clip(drawn, 1, case.width).astype(np.int64)
    lengths[0] = case.width
    return lengths


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Return the milliseconds of each part by implementation, and how many times as fast as pytorch-crf Hydromel is."""
    torch.set_num_threads(case.threads)
    work = Work(case)
    ways = {
        THEIRS: work.run_theirs,
        "packed": lambda: work.run_ours("packed"),
        "padded": lambda: work.run_ours("padded"),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    apart = 0.0
    for repeat in range(repeats + 2):  # two to warm up
        losses = {}
        # alternating order, so that each meets cold and warm caches
        for name in list(ways)[:: 1 if repeat % 2 else -1]:
            parts, losses[name] = ways[name]()
            if repeat >= 2:
                seconds[name].append([*parts, sum(parts)])
        apart = max(apart, *(abs(float(losses[name] / losses[THEIRS]) - 1) for name in ways))

    def summary(choose: Callable[[Iterable[float]], float]) -> dict[str, dict[str, float]]:
        return {
            name: {
                part: 1e3 * choose(column)
                for part, column in zip((*PARTS, "all"), zip(*rows, strict=True), strict=True)
            }
            for name, rows in seconds.items()
        }

    medians, best = summary(median), summary(min)
    ratios = {
        name: {"median": medians[THEIRS]["all"] / medians[name]["all"], "best": best[THEIRS]["all"] / best[name]["all"]}
        for name in OURS
    }
    real = float(work.lengths.sum() / (case.batch * case.width))
    return asdict(case) | {
        "real_share": real,
        "median_milliseconds": medians,
        "best_milliseconds": best,
        "times_as_fast": ratios,
        "peak_bytes": {name: peak_bytes(run, work.device) for name, run in ways.items()},
        "apart": apart,
    }


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that a call adds to the process after freed memory was returned, or to a GPU's allocator."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    memory = Memory(device)
    run()
    found = memory.state()
    return int(found["peak_bytes"]) - int(found["before_training_bytes"])


def machine(device: str) -> dict[str, object]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average_1_min": os.getloadavg()[0],
        "torch": torch.__version__,
        "pytorch-crf": version("pytorch-crf"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--lengths", nargs="+", choices=("uneven", "equal"), default=["uneven", "equal"])
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU time of this process, all threads together"
    )
    parser.add_argument("--repeats", type=int, default=21, help="repeats of each, interleaved")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found: dict[str, object] = {"before": machine(options.device)}
    cases = [
        Case(*size, lengths, threads, options.clock, options.device)
        for threads, lengths, size in product(options.threads, options.lengths, list(product(BATCHES, WIDTHS, TAGS)))
    ]
    figures = [measure(case, options.repeats) for case in cases]
    found |= {"after": machine(options.device), "repeats": options.repeats, "cases": figures}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(figures, found["before"])


def show(figures: list[dict[str, Any]], where: object) -> None:
    console = Console()
    console.print(where)
    columns = (
        "threads",
        "lengths",
        "B",
        "T",
        "C",
        "real",
        f"{THEIRS} ms",
        "packed ms",
        "packed",
        "padded",
        "apart",
        "MiB",
    )
    table = Table(
        *columns, title="loss / gradients / best paths: medians; times as fast: by medians (by the fastest repeats)"
    )
    for one in figures:
        milliseconds = (one["median_milliseconds"][name] for name in (THEIRS, "packed"))
        shown = (" / ".join(f"{each[part]:.2f}" for part in PARTS) for each in milliseconds)
        fast = (one["times_as_fast"][name] for name in OURS)
        table.add_row(
            *(str(one[key]) for key in ("threads", "lengths", "batch", "width", "tags")),
            f"{one['real_share']:.2f}",
            *shown,
            *(f"{ratio['median']:.1f} ({ratio['best']:.1f})" for ratio in fast),
            f"{one['apart']:.0e}",
            " / ".join(f"{one['peak_bytes'][name] / 2**20:.1f}" for name in (THEIRS, *OURS)),
        )
    console.print(table)
    for name, by in product(OURS, ("median", "best")):
        ratios = [one["times_as_fast"][name][by] for one in figures]
        console.print(f"{name}, by {by}: {min(ratios):.1f} times as fast at least; median {median(ratios):.1f}")


if __name__ == "__main__":
    main()
