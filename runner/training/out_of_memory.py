"""Lack of memory: micro-batches are halved, and a failed update is repeated in smaller pieces.

The loss of an update is one sum over all of its micro-batches, divided once. So the way an update is cut changes only
rounding (and the random numbers of dropout, and the statistics of batch normalisation). A stream cannot be cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError, ran_out
from runner.common.records import MemoryRecord, MicroBatchRecord
from runner.training.bookkeeping import describe_rows
from runner.training.state import Training

log = logging.getLogger(__name__)
T = TypeVar("T")


def halved_micro_batch(t: Training, rows: IntArray, update: int, error: Exception) -> int:
    """Return half of the micro-batch size with which an update (counted from 1; 0: the rehearsal) failed.

    Raises:
        HydromelError: the micro-batch was one row, or the window of a stream.
        Exception: `error` itself, if memory did not run out.
    """
    if not ran_out(error):
        raise error
    where = _where(update)
    if t.batching.carries_state:
        window = int(t.batching.longest(t.train.lengths, [rows])[0])
        raise HydromelError(
            f"out of memory at {where}: {t.batching.batch_size} streams by {window} tokens, which cannot be cut; "
            "lower batching.batch_size or batching.window"
        ) from error
    largest = max(map(len, t.shares(rows)))  # the same in every rank
    size = min(largest, t.batching.micro_batch or largest)
    if size < 2:
        raise HydromelError(
            f"out of memory at {where} with one row at once ({describe_rows(t, rows)}); cut rows by max_length=N, or "
            "choose a smaller model or another batching"
        ) from error
    return size // 2


def use_micro_batch(t: Training, size: int, update: int) -> None:
    """Continue with smaller micro-batches; the failed update's gradients are dropped and its memory released."""
    log.warning("out of memory at %s; continuing with micro-batches of %d rows", _where(update), size)
    t.optimizer.zero_grad()
    release_memory(t.clock.device)
    t.progress.micro_batch = size
    t.progress.halved_at.append(update)


def _where(update: int) -> str:
    return f"update {update}" if update else "the rehearsal before training"


def release_memory(device: torch.device) -> None:
    """Give back to the device the memory that torch's allocator holds in reserve; on a CPU it holds none."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def evaluate_within_memory(t: Training, evaluate: Callable[[], T]) -> T:
    """Return the result of `evaluate`, with half the `train.eval_batch_size` each time that memory runs out.

    Raises:
        HydromelError: memory runs out with one row, or with the streams of a stream's evaluation.
    """
    while True:
        try:
            return evaluate()
        except (RuntimeError, MemoryError) as error:
            size = t.eval_batch_size
            if not ran_out(error):
                raise
            if t.batching.carries_state:
                shapes = t.batching.evaluation_shapes([t.valid], size)
                raise HydromelError(
                    f"out of memory in evaluation of {shapes.rows.max()} streams by {shapes.widths.max()} "
                    "tokens; lower batching.evaluation_streams or batching.window"
                ) from error
            if size < 2:
                raise HydromelError(
                    "out of memory in evaluation of one row; cut rows by max_length=N, or choose a smaller model"
                ) from error
        # Only here, outside `except`: the error's traceback holds on to the tensors that did not fit.
        log.warning("out of memory in evaluation with %d rows per batch; continuing with %d", size, size // 2)
        t.progress.eval_batch_size = size // 2
        release_memory(t.clock.device)


def measure_if_memory_suffices(t: Training, what: str, measure: Callable[[], T]) -> T | None:
    """Return the result of `measure`, or None with a warning if memory runs out, so that no finished run is lost."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    log.warning("out of memory, so %s is not on record", what)
    t.optimizer.zero_grad()
    release_memory(t.clock.device)
    return None


def memory_record(t: Training, measured: MemoryRecord) -> MemoryRecord:
    """Return the `memory` section of result.json, from the peak that was measured."""
    asked, used, halved_at = t.strategy.micro_batch, t.batching.micro_batch, t.progress.halved_at
    sizes: MicroBatchRecord = {"asked": asked, "used": used, "halved_at": halved_at}
    return {**measured, "peak_batch": t.progress.peak_batch, "micro_batch": sizes}
