"""The check of memory before training: the largest micro-batch of the whole plan is run once.

A lack of memory then shows at once instead of after hours. Plans are functions of seed and epoch, so all micro-batches
are known from the start. The check changes nothing: gradients are dropped, random states and statistics restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn

from runner.batching.costs import computed_shapes
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.records import PeakBatchRecord
from runner.compat.torch import content_version
from runner.distributed.environment import ranks_on_this_machine
from runner.interfaces import PADDED, BatchingStrategy, HasStatistics
from runner.profiling.host_memory import available_bytes
from runner.profiling.live_memory import LiveBytes
from runner.ragged.ragged import Ragged
from runner.ragged.updates import Updates
from runner.training.out_of_memory import halved_micro_batch, use_micro_batch
from runner.training.state import Training

PLANNED_ROWS = 20_000_000  # most rows to search, of all epochs; takes about two seconds
ROWS_AT_ONCE = 2**20  # of a plan, to bound the memory of the search


def check_memory(t: Training, backward: Callable[[IntArray], object]) -> None:
    """Lower the micro-batch size until `backward` of the largest micro-batch fits into memory, and record its shape.

    The record is of the largest micro-batch of the whole run, earlier updates included. A resumed run may have no
    updates left.

    Raises:
        HydromelError: not even one row fits, or a module changes buffers that cannot be restored.
    """
    t.clock.start()
    rows, times = largest_micro_batch(t)
    while len(rows) and t.settings.rehearse and (error := _failure(t, rows, times, backward)):
        size = halved_micro_batch(t, rows, 0, error)
        del error  # its traceback holds on to the tensors that did not fit
        use_micro_batch(t, size, 0)
        rows, times = largest_micro_batch(t)
    shapes = [shape for shape in (t.progress.peak_batch, _shape(t, rows)) if shape is not None]
    t.progress.peak_batch = max(shapes, key=lambda shape: _size(t, shape), default=None)
    t.clock.synchronize()
    t.clock.lap("startup")


def largest_micro_batch(t: Training) -> tuple[IntArray, int]:
    """Return the largest micro-batch of all updates to come: most positions in memory, then most real tokens.

    Also return how often to run it: twice if updates have several micro-batches, since the gradients of the first one
    are then in memory too.
    """
    largest, chosen, times = (-1, -1), np.zeros(0, dtype=np.int64), 1
    for updates in _plan(t):
        shapes = computed_shapes(_of_all_ranks(t), t.train, updates)
        places = shapes.cells if _pads(t) else shapes.tokens
        index = int(np.lexsort((shapes.tokens, places))[-1])
        if (size := (int(places[index]), int(shapes.tokens[index]))) > largest:
            start = int(shapes.rows[:index].sum())
            chosen = updates.rows[start : start + int(shapes.rows[index])].astype(np.int64)
            largest, times = size, 1 + (len(shapes.rows) > len(updates))
    return chosen, times


def _of_all_ranks(t: Training) -> BatchingStrategy:
    """Return the strategy whose micro-batches are those that all ranks compute at the same time."""
    rows = t.batching.micro_batch
    return t.batching if rows is None else t.batching.with_micro_batch(rows * t.ranks.world)


def _plan(t: Training) -> Iterator[Updates]:
    """Yield the updates of each epoch to come, in parts; one epoch of a stream, since all have the same shapes."""
    done, limit = t.progress.updates, t.settings.max_updates
    lengths = t.train.cost_lengths
    most = 1 if t.batching.carries_state else max(1, PLANNED_ROWS // max(1, len(lengths)))
    for epoch in range(t.progress.epoch, min(t.settings.epochs, t.progress.epoch + most)):
        updates = t.batching.updates(lengths, t.seed, epoch)
        updates = updates[t.progress.update if epoch == t.progress.epoch else 0 :]
        updates = updates if limit is None else updates[: max(0, limit - done)]
        if updates:
            yield from Updates.of(updates).parts(ROWS_AT_ONCE)
            done += len(updates)
        elif epoch > t.progress.epoch:  # the first epoch may be over except for its evaluation
            return


def _failure(t: Training, rows: IntArray, times: int, backward: Callable[[IntArray], object]) -> Exception | None:
    """Run these rows as an update and return the error, or None if memory sufficed."""
    t.model.train()
    carried = t.progress.carried
    try:
        with unchanged(t.model, t.clock.device), _within_memory(t):
            for _ in range(times):
                backward(rows)
    except (RuntimeError, MemoryError) as error:
        return error
    finally:
        t.progress.carried = carried
        t.optimizer.zero_grad()
    return None


def _within_memory(t: Training) -> AbstractContextManager[object]:
    """Return a context that raises a MemoryError before this machine's memory is full; a GPU raises one by itself."""
    available = available_bytes() if t.clock.device.type == "cpu" else None
    if available is None:
        return nullcontext()
    columns = [t.train.target, *t.train.features.values()]
    split = [column.values if isinstance(column, Ragged) else column for column in columns]
    return LiveBytes([*t.model.parameters(), *t.model.buffers(), *split], available // ranks_on_this_machine())


@contextmanager
def unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the random states and the statistics (`HasStatistics`) after the context.

    Raises:
        HydromelError: the model changed other buffers.
    """
    # Only declared statistics are copied: other buffers, such as frozen word vectors, can be large. Those are watched
    # by their version counters, which every in-place operation raises.
    statistics = [
        (buffer, buffer.clone())
        for module in model.modules()
        if isinstance(module, HasStatistics)
        for buffer in module.statistics()
    ]
    restorable = {id(buffer) for buffer, _ in statistics}
    watched = {name: buffer for name, buffer in model.named_buffers() if id(buffer) not in restorable}
    versions = {name: content_version(buffer) for name, buffer in watched.items()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for buffer, before in statistics:
        buffer.copy_(before)
    if changed := [name for name, buffer in watched.items() if content_version(buffer) != versions[name]]:
        raise HydromelError(f"the model changes {changed[0]} in every forward pass; set train.rehearse=false")


def _size(t: Training, shape: PeakBatchRecord) -> tuple[int, int]:
    """Return the positions of a micro-batch in memory, and its real tokens."""
    places = t.train.texts * shape["rows"] * shape["width"] if _pads(t) else shape["tokens"]
    return places, shape["tokens"]


def _pads(t: Training) -> bool:
    return t.batching.layout in PADDED or (t.train.pieces is not None and t.train.pieces.always_padded)


def _shape(t: Training, rows: IntArray) -> PeakBatchRecord | None:
    """Return the rows, width and real tokens (or pieces) of a micro-batch as computed; None if it has no rows."""
    if not len(rows):
        return None
    own = t.own_rows(rows)
    if t.train.pieces is not None:
        shapes = computed_shapes(t.batching, t.train, [own])
        return {"rows": len(own), "width": int(shapes.widths[0]), "tokens": int(shapes.tokens[0])}
    batch = next(iter(t.batching.micro_batches(t.train, own)))
    return {"rows": len(batch.index), "width": batch.rows.width, "tokens": int(t.train.lengths[own].sum())}
