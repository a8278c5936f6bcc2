"""When memory does not suffice: micro-batches are halved, and an update that failed is made again in smaller pieces.

An update's loss is one sum over all of its micro-batches, divided once, so that how it is cut changes nothing but
rounding (and, with dropout or normalisation over batches, what they draw or see). A stream cannot be cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.records import MemoryRecord
from runner.training.state import Training

log = logging.getLogger(__name__)
T = TypeVar("T")
_SHOWN_ROWS = 8
# of RuntimeErrors, which is what torch raises where the CPU, oneDNN or cuBLAS gets no memory
_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "status_alloc_failed",
)
_ONEDNN = ("could not create a primitive", "could not execute a primitive")  # all that it says of its lack of memory


def ran_out(error: BaseException) -> bool:
    """Return True for a lack of memory: torch.OutOfMemoryError, MemoryError, or a RuntimeError that says so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).strip().lower()
    return isinstance(error, RuntimeError) and (said in _ONEDNN or any(word in said for word in _WORDS))


def halved_micro_batch(t: Training, rows: IntArray, at: int, error: Exception) -> int:
    """Return half of the rows that went through the model at once when the update of these `rows` raised `error`.

    Args:
        at: number of the update, counted from 1; 0: the rehearsal before training.

    Raises:
        HydromelError: that was one row already, or the window of a stream.
        Exception: `error` itself, if memory was not what failed.
    """
    if not ran_out(error):
        raise error
    said = f"update {at}" if at else "the rehearsal before training"
    if t.batching.carries_state:
        window = int(t.batching.longest(t.train.rows.host_lengths, [rows])[0])
        raise HydromelError(
            f"out of memory at {said}: {t.batching.batch_size} streams by {window} tokens, which cannot be "
            "cut; lower batching.batch_size or batching.window"
        ) from error
    at_once = min(len(rows), t.batching.micro_batch or len(rows))
    if at_once < 2:
        raise HydromelError(
            f"out of memory at {said} with one row at once ({describe_rows(t, rows)}); cut rows by max_length=N, or "
            "choose a smaller model or another batching"
        ) from error
    log.warning("out of memory at %s with %d rows at once; from here on %d", said, at_once, at_once // 2)
    return at_once // 2


def describe_rows(t: Training, rows: IntArray) -> str:
    """`rows 3, 17 of train, counted from 0; lengths 9, 4,012`."""
    shown, more = rows[:_SHOWN_ROWS], ", ..." if len(rows) > _SHOWN_ROWS else ""
    lengths = ", ".join(f"{length:,}" for length in t.train.rows.host_lengths[shown])
    return f"rows {', '.join(map(str, shown))}{more} of train, counted from 0; lengths {lengths}{more}"


def use_micro_batch(t: Training, size: int, at: int) -> None:
    """Continue with smaller micro-batches; the failed update's gradients are dropped and its memory released."""
    t.optimizer.zero_grad()
    give_back(t.clock.device)
    t.progress.micro_batch = size
    t.progress.halved_at.append(at)


def give_back(device: torch.device) -> None:
    """Release the memory that torch's allocator holds in reserve; on a CPU it holds none."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def evaluate_within_memory(t: Training, evaluate: Callable[[], T]) -> T:
    """Return the result of `evaluate`, with half the `train.eval_batch_size` each time that memory runs out.

    Raises:
        HydromelError: it does so with one row, or with the streams of a stream's evaluation.
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
        log.warning("out of memory in evaluation with %d rows at once; from here on %d", size, size // 2)
        t.progress.eval_batch_size = size // 2
        give_back(t.clock.device)


def measure_if_memory_suffices(t: Training, what: str, measure: Callable[[], T]) -> T | None:
    """Return the result of `measure`, or None with a warning if memory runs out, so that no finished run is lost."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    log.warning("out of memory, so %s is not on record", what)
    t.optimizer.zero_grad()
    give_back(t.clock.device)
    return None


def memory_record(t: Training, measured: MemoryRecord, asked: int | None) -> MemoryRecord:
    """Return the `memory` section of result.json.

    Args:
        t: the training, after its end.
        measured: peak memory.
        asked: the option `batching.micro_batch`.
    """
    return {
        **measured,
        "peak_batch": t.progress.peak_batch,
        "micro_batch": {"asked": asked, "used": t.batching.micro_batch, "halved_at": t.progress.halved_at},
    }
