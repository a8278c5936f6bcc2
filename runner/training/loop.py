"""Training and evaluation: one loop for all tasks, strategies and devices.

An epoch runs in segments: to the end of the warm-up, to the next checkpoint, to the end of the epoch. Within a segment
nothing is logged, counted or waited for, so that a GPU never idles; all bookkeeping happens between segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.encoders.carried_state import detach_state
from runner.interfaces import START, State
from runner.layers.dropout import row_seeds
from runner.model import Model, counters, device_of, unseeded_dropout
from runner.ragged.batch import Batch
from runner.tables.detail import without_tables
from runner.terminal.interruption import interruption
from runner.training.bookkeeping import (
    NotFinite,
    add_costs,
    check_finite,
    check_parameters,
    record_evaluation,
    record_losses,
    report_epoch,
)
from runner.training.checkpoint import write_best, write_last
from runner.training.evaluation import choose_on_valid, evaluate, evaluate_together
from runner.training.memory_check import check_memory
from runner.training.optimizers import averaged, clip_gradients, observe
from runner.training.out_of_memory import evaluate_within_memory, halved_micro_batch, use_micro_batch
from runner.training.state import Training
from runner.training.threads import choose_threads


def fit(t: Training) -> None:
    """Train until the epochs, the updates or the patience run out. A resumed run may have nothing left to do.

    Raises:
        HydromelError: the run diverged, or not even one row fits into memory.
        KeyboardInterrupt: the run was asked to stop; its last checkpoint has all updates.
    """
    progress, settings = t.progress, t.settings
    _keep_best(t)  # a resumed run may have been interrupted just before it did this
    check_memory(t, lambda rows: add_gradients(t, rows, lambda phase: None))
    choose_threads(t, lambda rows: add_gradients(t, rows, lambda phase: None))
    with interruption.deferred(shared=t.ranks.world > 1):
        # A run that was interrupted within an epoch and resumed with fewer updates ends there, with an evaluation.
        while not progress.is_over(settings) or progress.evaluated_at < progress.updates:
            updates = t.epoch_updates()
            losses: list[float] = []
            while progress.update < len(updates) and not progress.is_over(settings):
                losses += train_segment(t, updates[progress.update : _segment_end(t, len(updates))])
                if interruption.reason or (progress.update < len(updates) and not progress.is_over(settings)):
                    _keep_last(t)
                    interruption.check()
            record_losses(t, is_complete=True)
            _evaluate_and_keep(t, len(updates), float(np.mean(losses)) if losses else math.nan)
            interruption.check()


def train_segment(t: Training, updates: Sequence[IntArray]) -> list[float]:
    """Make some updates, then do their bookkeeping, and return the mean loss of each.

    The segment ends early if the run is asked to stop, or if memory runs out: then the next one starts with the same
    update in smaller micro-batches.
    """
    t.model.train()
    joules, counts = t.meter.joules(), counters(t.model)
    start = t.clock.synchronize()
    marks = [t.clock.start()]
    losses, norms, supervised, smaller = [], [], 0, None
    for rows in updates:
        factor = t.schedule.factor(t.progress.updates) * t.batching.learning_rate_factor(rows)
        for group in t.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        try:
            loss, count = add_gradients(t, rows, t.clock.lap)
        except (RuntimeError, MemoryError) as error:
            smaller = halved_micro_batch(t, rows, t.progress.updates + 1, error)
            break
        norm = clip_gradients(t.optimizer, t.settings.clip_norm, None if t.shards is None else t.shards.norm)
        # free on a CPU; a GPU would have to wait, so there it is checked after the segment
        if loss.device.type == "cpu":
            check_finite(t, t.progress.updates + 1, [loss.item()], [norm.item()], [rows])
        t.optimizer.step()
        t.optimizer.zero_grad()
        marks.append(t.clock.lap("optimizer"))
        losses.append(loss)
        norms.append(norm)
        supervised += count
        t.progress.updates += 1
        if interruption.reason:
            break
    seconds = t.clock.synchronize() - start
    for before, after in t.ranks.gathered(((joules, counts), (t.meter.joules(), counters(t.model)))):
        t.costs.add_joules(before[0], after[0])
        t.costs.add_counters(before[1], after[1])
    values, norm_values = _read(losses), _read(norms)  # training waits for the device only from here on
    if values:
        check_finite(t, t.progress.updates - len(values) + 1, values, norm_values, updates)
        check_parameters(t)
        add_costs(t, updates[: len(values)], supervised, seconds, t.clock.intervals(marks))
        t.progress.unrecorded += zip(values, norm_values, strict=True)
        record_losses(t, is_complete=False)
        t.progress.update += len(values)
    if smaller is not None:
        use_micro_batch(t, smaller, t.progress.updates + 1)
    return values


def _read(values: list[Tensor]) -> list[float]:
    """Return the values of the updates of a segment, each (), on the host."""
    on_host: list[float] = torch.stack(values).tolist() if values else []
    return on_host


def add_gradients(t: Training, rows: IntArray, lap: Callable[[str], object]) -> tuple[Tensor, int]:
    """Add the gradients of one update's mean loss; return that loss and the number of targets.

    Of several ranks, each computes its own rows, and all add up their gradients.
    """
    exchange = t.shards.mean_gradients if t.shards else partial(t.ranks.mean_gradients, t.model)
    mean = exchange(lambda: _add_own_gradients(t, rows, lap))
    if t.ranks.world > 1 and unseeded_dropout(t.model):  # a rank without rows has drawn no mask of weights
        t.ranks.share_generator(t.clock.device)
    return mean


def _add_own_gradients(t: Training, update: IntArray, lap: Callable[[str], object]) -> tuple[Tensor, int]:
    """Add the gradients of this rank's rows of an update; return their loss and number of targets, as `backward`."""
    micro_batches = _micro_batches(t, t.own_rows(update))
    count = sum(t.task.count(batch) for batch in micro_batches)
    missing = 0 if t.shards is None else t.ranks.most(len(micro_batches)) - len(micro_batches)
    lap("data")
    divisor = count if t.ranks.world == 1 else 1  # several ranks divide by the targets of all
    loss, t.progress.carried = backward(t.model, micro_batches, divisor, t.progress.carried, t.bf16, lap)
    for _ in range(missing):  # every pass exchanges shards, so all ranks take part in it
        backward(t.model, _micro_batches(t, update[:1]), math.inf, START, t.bf16, lap)  # it adds nothing
    return loss, count


def _micro_batches(t: Training, rows: IntArray) -> list[Batch]:
    micro_batches = list(t.batching.micro_batches(t.train, rows))
    if t.settings.row_dropout or t.ranks.world > 1:  # dropout must not depend on which rank computes a row
        micro_batches = [_with_row_seeds(t, batch) for batch in micro_batches]
    return micro_batches


def _with_row_seeds(t: Training, batch: Batch) -> Batch:
    numbers = batch.rows.send(np.ascontiguousarray(batch.index, dtype=np.int64))
    return batch.with_seeds(row_seeds(numbers, t.seed, t.progress.updates))


def backward(
    model: Model, micro_batches: list[Batch], count: float, carried: State, bf16: bool, lap: Callable[[str], object]
) -> tuple[Tensor, State]:
    """Add the gradients of one update's mean loss, summed over its micro-batches.

    Args:
        count: the number by which the sum of every micro-batch is divided: targets of the whole update.
        carried: the state at the start of a stream's windows.
        lap: called at the end of each `forward` and `backward`.

    Returns:
        The mean loss, (), and the state at the end of the windows.
    """
    total: Tensor | None = None if micro_batches else torch.zeros((), device=device_of(model))
    for batch in micro_batches:
        with torch.autocast(batch.rows.device.type, torch.bfloat16, enabled=bf16):
            scores, state = model(batch, carried if batch.carries_state else None)
            loss = model.head.loss(scores, batch).total / max(1, count)
        lap("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        lap("backward")
        total = loss.detach() if total is None else total + loss.detach()
        carried = detach_state(state) if batch.carries_state else START
    assert total is not None
    return total, carried


def _segment_end(t: Training, n_updates: int) -> int:
    """Return the update of this epoch before which the next bookkeeping is due."""
    done, settings = t.progress.updates, t.settings
    ends = [settings.warmup_updates, done + n_updates - t.progress.update]
    if settings.max_updates is not None:
        ends.append(settings.max_updates)
    if settings.checkpoint_every is not None:
        ends.append((done // settings.checkpoint_every + 1) * settings.checkpoint_every)
    return t.progress.update + min(end for end in ends if end > done) - done


def _keep_last(t: Training) -> None:
    """Write the records and the last checkpoint between two evaluations."""
    t.clock.start()
    # Records first: a resumed run does not repeat the updates before its checkpoint, so it would never record them.
    t.run.flush()
    write_last(t)
    t.clock.lap("tracking")


def _evaluate_and_keep(t: Training, n_updates: int, mean_loss: float) -> None:
    """Evaluate on the validation set, write the best and the last checkpoint, and inform schedule and optimiser.

    The epoch ends if all of its `n_updates` updates were made.
    """
    t.clock.synchronize()
    t.clock.start()
    try:
        with averaged(t.optimizer), t.whole() as whole:
            quality, metrics = evaluate_valid(whole)
    except KeyboardInterrupt:  # evaluation changes nothing, so it is made again when the run is resumed
        _keep_last(t)
        raise
    t.clock.lap("evaluation")
    progress = t.progress
    if progress.update == n_updates:
        progress.epoch, progress.update, progress.carried = progress.epoch + 1, 0, START
    progress.waited += 1
    progress.evaluated_at = progress.updates
    if progress.best is None or quality > progress.best:
        progress.best, progress.best_metrics, progress.waited = quality, without_tables(metrics), 0
        progress.best_at = progress.updates
    t.schedule.observe(quality)
    observe(t.optimizer, quality)
    record_evaluation(t, metrics)
    # The best checkpoint comes last: it must never be ahead of the one that a resumed run continues from.
    write_last(t)
    _keep_best(t)
    report_epoch(t, metrics, mean_loss)
    t.clock.synchronize()
    t.clock.lap("tracking")
    t.clock.synchronize()


def _keep_best(t: Training) -> None:
    """Write the best checkpoint if the current parameters, or their average, have the best quality so far."""
    if t.progress.best_at == t.progress.updates:
        with averaged(t.optimizer), t.whole() as whole:
            write_best(whole)


def evaluate_valid(t: Training) -> tuple[float, dict[str, object]]:
    """Return the quality on the validation set, larger is better, and all metrics.

    Raises:
        HydromelError: no metric of the run has the figure `train.metric`, or scores are NaN or this figure infinite.
        KeyboardInterrupt: the run was asked to stop.
    """

    def measured() -> dict[str, object]:
        t.ranks.within_memory(lambda: choose_on_valid(t.model, t.valid_batches, t.bf16))
        if t.ranks.world > 1:
            return evaluate_together(t)
        return evaluate(t.model, t.measures.start(t.vocabs), t.valid_batches(), t.bf16)

    metrics = evaluate_within_memory(t, measured)
    value = metrics.get(t.metric_name)
    if not isinstance(value, float):
        figures = ", ".join(name for name, figure in metrics.items() if isinstance(figure, float))
        raise HydromelError(
            f"train.metric={t.metric_name}: no metric of this run has such a figure; use one of {figures}"
        )
    if not math.isfinite(value):  # a perplexity beyond the range of a float, from finite losses
        raise NotFinite(f"{t.metric_name} on valid is {value} after update {t.progress.updates}; lower optimizer.lr")
    return value if t.measures.scales[t.metric_name].higher_is_better else -value, metrics
