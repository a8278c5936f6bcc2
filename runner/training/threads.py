"""The number of threads of a run that names none: one or all, whichever makes its first updates faster.

Beside other work, threads that wait for each other can be 50 times slower than one thread. The number is chosen once,
by a trial on the run's own batches, and kept in checkpoints: with another number sums are rounded differently. All runs
of a sweep have the number that the first of them chose, so that their speeds can be compared.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from filelock import FileLock
from pydantic import TypeAdapter

from runner.common.arrays import IntArray
from runner.common.bounded import read_bytes
from runner.common.files import write_json
from runner.common.records import parse
from runner.common.types import Threads
from runner.training.memory_check import unchanged
from runner.training.state import Training

log = logging.getLogger(__name__)
FILE = "threads.json"  # in the folder of a sweep: the number by host
_AT_START = torch.get_num_threads()  # before a run of this process chose another number
_SHORT_S = 5.0  # a run that one thread would end sooner is not worth a trial
_TRIAL_S, _TURN_S = 0.4, 0.03  # time of the trial, and of one thread's turns in it
_LEAST_GAIN = 1.1  # all threads have to be this much faster: they also need more CPU time
_BY_HOST = TypeAdapter(dict[str, Threads])


def choose_threads(t: Training, backward: Callable[[IntArray], object]) -> None:
    """Set the number of threads of a run: the one that is known, otherwise (on a CPU) by a trial of `backward`.

    The trial changes nothing else: gradients are dropped, random states and statistics restored. There is none with
    `train.rehearse` false.

    Raises:
        HydromelError: the file of a sweep is damaged or cannot be written.
    """
    progress, most = t.progress, most_threads()
    alone = t.ranks.world == 1  # several ranks divide the cores between them
    if progress.threads is None and alone and t.clock.device.type == "cpu" and t.settings.rehearse:
        t.clock.start()
        shared = t.run.path.parent / FILE if t.run.run.get("sweep_id") is not None and most > 1 else None
        with _locked(shared):  # runs that start together neither disturb a trial nor choose differently
            numbers = _by_host(shared)
            progress.threads = numbers.get(platform.node())
            if progress.threads is not None:
                log.info("threads: %d, as in the first run of this sweep", progress.threads)
            else:
                progress.threads = _tried(t, backward, most) if most > 1 else 1
                if shared is not None:
                    write_json(shared, numbers | {platform.node(): progress.threads})
        t.clock.lap("startup")
    if progress.threads is not None:
        torch.set_num_threads(progress.threads)


def most_threads() -> int:
    """Return the number of threads that torch uses by itself, one for each core."""
    return max(_AT_START, torch.get_num_threads())


def _tried(t: Training, backward: Callable[[IntArray], object], most: int) -> int:
    """Return 1 or `most`, and log why."""
    settings, progress = t.settings, t.progress
    updates = t.batching.updates(t.train.cost_lengths, t.seed, progress.epoch)
    left = len(updates) * (settings.epochs - progress.epoch) - progress.update
    if settings.max_updates is not None:
        left = min(left, settings.max_updates - progress.updates)
    updates = updates[progress.update :]
    if left <= 0 or not updates:
        return most
    t.model.train()
    carried = progress.carried
    with unchanged(t.model, t.clock.device):
        chosen, reason = faster_number(backward, updates, left, most)
    progress.carried = carried
    t.optimizer.zero_grad()
    log.info("threads: %d, %s", chosen, reason)
    return chosen


def faster_number(
    backward: Callable[[IntArray], object], updates: Sequence[IntArray], left: int, most: int
) -> tuple[int, str]:
    """Return 1 or `most`, whichever makes a run of `left` updates faster, and why, by a trial on some `updates`."""
    first = seconds_of(backward, updates[:1], 1)
    if first * left < _SHORT_S:
        return 1, "enough for so short a run; threads=N sets another number"
    one, many = trial(backward, updates, most, max(1, round(_TURN_S / first)))
    reason = f"by a trial: {most} threads make {one / many:.2f} times the speed of one here and now"
    return (most if one > _LEAST_GAIN * many else 1), reason


def trial(
    backward: Callable[[IntArray], object], updates: Sequence[IntArray], most: int, turn: int
) -> tuple[float, float]:
    """Return the seconds that the same updates took with one thread and with `most`, in turns of `turn` updates."""
    one = many = 0.0
    for start in range(0, len(updates), turn):
        one += seconds_of(backward, updates[start : start + turn], 1)
        many += seconds_of(backward, updates[start : start + turn], most)
        if one + many > _TRIAL_S:
            break
    return one, many


def seconds_of(backward: Callable[[IntArray], object], updates: Sequence[IntArray], threads: int) -> float:
    """Return the wall time of some updates with this number of threads."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    for rows in updates:
        backward(rows)
    return time.perf_counter() - start


def _locked(shared: Path | None) -> AbstractContextManager[object]:
    return contextlib.nullcontext() if shared is None else FileLock(f"{shared}.lock")


def _by_host(shared: Path | None) -> dict[str, int]:
    if shared is None or not shared.exists():
        return {}
    return parse(_BY_HOST, read_bytes(shared), str(shared))
