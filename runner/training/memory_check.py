"""The neediest micro-batch of the whole plan, run once before training, so that what does not fit shows at once.

It changes nothing: gradients are dropped, random states and statistics put back. Plans are functions of seed and epoch,
so all of them are known from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.records import PeakBatchRecord
from runner.compat.torch import content_version
from runner.interfaces import PADDED, HasStatistics
from runner.ragged.shapes import Updates
from runner.training.out_of_memory import halved_micro_batch, use_micro_batch
from runner.training.state import Training

PLANNED_ROWS = 20_000_000  # of all epochs that are looked through: about two seconds


def check_memory(t: Training, backward: Callable[[IntArray], object]) -> None:
    """Find micro-batches that fit, and note which one needs most.

    Args:
        backward: adds the gradients of an update of these rows.

    Raises:
        HydromelError: not even one row at once fits, or a module changes what cannot be put back.
    """
    t.clock.start()
    rows, times = largest_micro_batch(t)
    while t.settings.rehearse and (error := _failure(t, rows, times, backward)):
        smaller = halved_micro_batch(t, rows, 0, error)
        del error  # its traceback holds on to what did not fit
        use_micro_batch(t, smaller, 0)
        rows, times = largest_micro_batch(t)
    t.progress.peak_batch = _shape(t, rows)
    t.clock.synchronize()
    t.clock.lap("startup")


def largest_micro_batch(t: Training) -> tuple[IntArray, int]:
    """The micro-batch of most places in memory, then of most real tokens, in all updates that are to come.

    Returns:
        Its rows, and how often to run it: twice where gradients are added to others that are there already.
    """
    best, chosen, times = (-1, -1), np.zeros(0, dtype=np.int64), 1
    for updates in _plan(t):
        shapes = t.batching.shapes(t.train.rows.host_lengths, updates)
        places = shapes.cells if t.batching.layout in PADDED else shapes.tokens
        most = int(np.lexsort((shapes.tokens, places))[-1])
        if (needs := (int(places[most]), int(shapes.tokens[most]))) > best:
            start = int(shapes.rows[:most].sum())
            chosen = np.concatenate(updates)[start : start + int(shapes.rows[most])]
            best, times = needs, 1 + (len(shapes.rows) > len(updates))
    return chosen, times


def _plan(t: Training) -> Iterator[Updates]:
    """The updates of each epoch from here on; a stream's epochs are alike."""
    done, limit = t.progress.updates, t.settings.max_updates
    lengths = t.train.rows.host_lengths
    most = 1 if t.batching.carries_state else max(1, PLANNED_ROWS // max(1, len(lengths)))
    for epoch in range(t.progress.epoch, min(t.settings.epochs, t.progress.epoch + most)):
        updates = t.batching.updates(lengths, t.seed, epoch)
        here = updates[t.progress.update if epoch == t.progress.epoch else 0 :]
        here = here if limit is None else here[: max(0, limit - done)]
        if not here:
            return
        yield here
        done += len(here)


def _failure(t: Training, rows: IntArray, times: int, backward: Callable[[IntArray], object]) -> Exception | None:
    """Run these rows as an update and return the error, or None if memory sufficed."""
    t.model.train()
    carried = t.progress.carried
    try:
        with _unchanged(t.model, t.clock.device):
            for _ in range(times):
                backward(rows)
    except (RuntimeError, MemoryError) as error:
        return error
    finally:
        t.progress.carried = carried
        t.optimizer.zero_grad()
    return None


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Random states are put back, and the statistics that a forward pass gathers."""
    statistics = [
        (buffer, buffer.clone())
        for module in model.modules()
        if isinstance(module, HasStatistics)
        for buffer in module.statistics()
    ]
    kept = {id(one) for one, _ in statistics}
    versions = {name: (one, content_version(one)) for name, one in model.named_buffers() if id(one) not in kept}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for one, before in statistics:
        one.copy_(before)
    if changed := [name for name, (one, version) in versions.items() if content_version(one) != version]:
        raise HydromelError(f"the model changes {changed[0]} in every forward pass; set train.rehearse=false")


def _shape(t: Training, rows: IntArray) -> PeakBatchRecord | None:
    """Rows, width and real tokens of these rows as they go through the model; None where no update is to come."""
    if not len(rows):
        return None
    batch = next(iter(t.batching.micro_batches(t.train, rows))).rows
    return {"rows": batch.n_rows, "width": batch.width, "tokens": int(t.train.rows.host_lengths[rows].sum())}
