"""Training and evaluation: one plain loop for all tasks, strategies and devices.

An epoch is run in segments (up to the end of the warm-up, to the next checkpoint, to its own end). Inside a segment
nothing is logged, counted or waited for; all bookkeeping stands between segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.run_schema import higher_is_better
from runner.encoders.carried_state import detach_state
from runner.interfaces import START, Head, Metric, State
from runner.model import Model, counters, device_of
from runner.profiling.accounting import Mark
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.training.averaged_sgd import averaged, observe
from runner.training.bookkeeping import account, check_finite, log
from runner.training.checkpoint import keep
from runner.training.memory_check import check_memory
from runner.training.out_of_memory import evaluate_within_memory, halved_micro_batch, use_micro_batch
from runner.training.state import Training


def fit(t: Training) -> None:
    """Train until the epochs, the updates or the patience are used up.

    Raises:
        HydromelError: a loss that is not finite.
    """
    check_memory(t, lambda rows: _gradients(t, rows, lambda phase: None))
    while t.progress.epoch < t.settings.epochs and not _used_up(t):
        updates = t.batching.updates(t.train.rows.host_lengths, t.seed, t.progress.epoch)
        losses: list[float] = []
        while t.progress.update < len(updates) and not _used_up(t):
            end = _segment_end(t, len(updates))
            losses += train_segment(t, updates[t.progress.update : end])
            if t.progress.update < len(updates) and not _used_up(t):
                t.clock.start()
                t.run.flush()  # before the checkpoint: what lies behind it is not trained, so not logged, again
                keep(t, "last")
                t.clock.lap("tracking")
        if t.progress.update == len(updates):
            t.progress.epoch, t.progress.update, t.progress.carried = t.progress.epoch + 1, 0, START
        _evaluate_and_keep(t, float(np.mean(losses)) if losses else math.nan)


def evaluate(model: Model, metric: Metric, batches: Iterable[Batch], bf16: bool) -> dict[str, Any]:
    """The metric over all batches; a state is carried from batch to batch where they continue one another."""
    model.eval()
    state, head = START, cast(Head, model.head)
    with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            scores, state = model(batch, state if batch.carries_state else None)
            said = head.predict(scores, batch) if metric.takes == "answers" else _losses(head, scores, batch)
            metric.update(said, batch)
        return metric.compute()


def _losses(head: Head, scores: Tensor, batch: Batch) -> Tensor:
    """(B,) or (N,) losses."""
    losses = head.losses(scores, batch)
    return losses.tokens() if isinstance(losses, Ragged) else losses


def train_segment(t: Training, updates: list[IntArray]) -> list[float]:
    """Run updates one after another, then account for them: the mean loss of each.

    Where memory runs out the segment ends, and the next one begins with the same update in smaller pieces.
    """
    t.model.train()
    joules, counted = t.meter.joules(), counters(t.model)
    begin = t.clock.synchronize()
    ends = [t.clock.start()]
    losses, supervised, smaller = [], 0, None
    for rows in updates:
        _set_rate(t, rows)
        try:
            loss, count = _gradients(t, rows, t.clock.lap)
        except (RuntimeError, MemoryError) as error:
            smaller = halved_micro_batch(t, rows, t.progress.updates + 1, error)
            break
        if t.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(t.model.parameters(), t.settings.clip_norm)
        if loss.device.type == "cpu":  # costs nothing here; elsewhere it would wait for the device
            check_finite(t, t.progress.updates + 1, [loss.item()], [rows])
        t.optimizer.step()
        t.optimizer.zero_grad()
        ends.append(t.clock.lap("optimizer"))
        losses.append(loss)
        supervised += count
        t.progress.updates += 1
    seconds = t.clock.synchronize() - begin
    t.costs.add_joules(joules, t.meter.joules())
    t.costs.add_counters(counted, counters(t.model))
    values = _recorded(t, updates[: len(losses)], losses, supervised, seconds, ends) if losses else []
    if smaller is not None:
        use_micro_batch(t, smaller, t.progress.updates + 1)
    return values


def _recorded(
    t: Training, updates: list[IntArray], losses: list[Tensor], supervised: int, seconds: float, ends: list[Mark]
) -> list[float]:
    """The bookkeeping of a segment: the mean loss of each update."""
    values: list[float] = torch.stack(losses).tolist()
    check_finite(t, t.progress.updates - len(values) + 1, values, updates)
    account(t, updates, supervised, seconds, t.clock.intervals(ends))
    log(t, values)
    t.progress.update += len(updates)
    return values


def _gradients(t: Training, rows: IntArray, lap: Callable[[str], object]) -> tuple[Tensor, int]:
    """Add the gradients of one update's mean loss; return the loss and the number of its targets."""
    micro_batches = list(t.batching.micro_batches(t.train, rows))
    count = sum(t.task.count(batch) for batch in micro_batches)
    lap("data")
    loss, t.progress.carried = backward(t.model, t.head, micro_batches, count, t.progress.carried, t.bf16, lap)
    return loss, count


def backward(
    model: Model,
    head: Head,
    micro_batches: list[Batch],
    count: int,
    carried: State,
    bf16: bool,
    lap: Callable[[str], object],
) -> tuple[Tensor, State]:
    """Add the gradients of one update's mean loss, over its micro-batches.

    Args:
        count: answers of the whole update, by which every micro-batch's sum is divided.
        carried: the state at the begin of the windows of a stream.
        lap: told when a `forward` and a `backward` is done.

    Returns:
        The mean loss, (), and the state at the windows' end.
    """
    total: Tensor | None = None
    for batch in micro_batches:
        with torch.autocast(batch.rows.device.type, torch.bfloat16, enabled=bf16):
            scores, state = model(batch, carried if batch.carries_state else None)
            loss = head.loss(scores, batch).total / max(1, count)
        lap("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        lap("backward")
        total = loss.detach() if total is None else total + loss.detach()
        carried = detach_state(state) if batch.carries_state else START
    assert total is not None
    return total, carried


def _set_rate(t: Training, rows: IntArray) -> None:
    factor = t.schedule.factor(t.progress.updates) * t.batching.rate_factor(rows)
    for group in t.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _used_up(t: Training) -> bool:
    limit, patience = t.settings.max_updates, t.settings.patience
    enough = limit is not None and t.progress.updates >= limit
    return enough or (patience is not None and t.progress.waited >= patience)


def _segment_end(t: Training, n_updates: int) -> int:
    """The update of this epoch before which the next bookkeeping is due."""
    done, here = t.progress.updates, t.progress.update
    ahead = [n_updates - here]
    if done < t.settings.warmup_updates:
        ahead.append(t.settings.warmup_updates - done)
    if t.settings.max_updates is not None:
        ahead.append(t.settings.max_updates - done)
    if t.settings.checkpoint_every is not None:
        ahead.append(t.settings.checkpoint_every - done % t.settings.checkpoint_every)
    return here + min(ahead)


def _evaluate_and_keep(t: Training, mean_loss: float) -> None:
    """Evaluate on valid, keep the best and the last checkpoint, and tell the schedule."""
    t.clock.synchronize()
    t.clock.start()
    with averaged(t.optimizer):
        value, metrics = _evaluate(t)
        t.clock.lap("evaluation")
        t.progress.waited += 1
        if t.progress.best is None or value > t.progress.best:
            t.progress.best, t.progress.best_metrics, t.progress.waited = value, metrics, 0
            keep(t, "best")
    t.schedule.observe(value)
    observe(t.optimizer, value)
    _log_evaluation(t, metrics)
    keep(t, "last")
    t.after_evaluation(t, metrics, mean_loss)
    t.clock.synchronize()
    t.clock.lap("tracking")
    t.clock.synchronize()


def _evaluate(t: Training) -> tuple[float, dict[str, Any]]:
    """The quality on valid, larger is better, and all figures."""

    def measured() -> dict[str, Any]:
        return evaluate(t.model, t.metric(), t.batching.evaluation_batches(t.valid, t.eval_batch_size), t.bf16)

    metrics = evaluate_within_memory(t, measured)
    if not isinstance(metrics.get(t.metric_name), float):
        figures = ", ".join(name for name, value in metrics.items() if isinstance(value, float))
        raise HydromelError(f"train.metric={t.metric_name}: this task has no such figure; it has {figures}")
    return metrics[t.metric_name] * (1 if higher_is_better(t.metric_name) else -1), metrics


def _log_evaluation(t: Training, metrics: dict[str, Any]) -> None:
    """Figures of valid and what training took so far, on disk before the checkpoint that lies behind them."""
    figures = {f"valid/{name}": value for name, value in metrics.items() if isinstance(value, float)}
    cost = {"train/seconds": t.costs.training_seconds, "train/tokens": float(t.costs.real_tokens)}
    t.run.log(t.progress.updates, t.progress.last_epoch, figures | cost)
    t.run.flush()
