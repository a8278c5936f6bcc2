"""Bookkeeping between two segments of training: counts, records, and the check that the loss is finite."""

from __future__ import annotations

import math

import numpy as np

from runner.batching.padding import no_padding
from runner.batching.plan import digest
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.training.state import Training

_SHOWN_ROWS = 8


class NotFinite(HydromelError):
    """The loss is NaN or infinite."""


def account(t: Training, updates: list[IntArray], supervised: int, seconds: float, each: list[float]) -> None:
    """Add what some updates took.

    Args:
        seconds: by the host's clock, the device waited for at both ends.
        each: seconds of every update, on a GPU those of the device.
    """
    lengths, timed = t.train.rows.host_lengths, t.progress.updates > t.settings.warmup_updates
    padding, tokens = no_padding(), 0
    for longest, members in by_longest(t.batching.longest(lengths, updates)):
        some = [updates[place] for place in members]
        padded = t.batching.padding(lengths, some)
        real = int(lengths[np.concatenate(some)].sum())
        padding, tokens = {cause: padding[cause] + padded[cause] for cause in padding}, tokens + real
        if timed:
            t.costs.add_length(
                longest,
                updates=len(some),
                real_tokens=real,
                places=real + sum(padded.values()),
                seconds=sum(each[place] for place in members),
            )
    t.costs.add(
        tokens=tokens,
        examples=sum(map(len, updates)),
        updates=len(updates),
        supervised=supervised,
        seconds=seconds,
        timed=timed,
        padding=padding,
    )
    t.progress.digest = digest(updates, t.progress.digest)


def by_longest(longest: IntArray) -> list[tuple[int, list[int]]]:
    """(U,) tokens of the longest row of each update -> by power of two, rounded up, the places of its updates."""
    exponents = np.frexp(np.maximum(1, longest) - 1)[1]  # of a whole number, its binary digits
    return [(1 << int(one), np.flatnonzero(exponents == one).tolist()) for one in np.unique(exponents)]


def log(t: Training, losses: list[float]) -> None:
    """A record for each `log_every` updates, and one for what is left over."""
    first = t.progress.updates - len(losses)
    full_rate = t.optimizer.param_groups[0]["initial_lr"]
    for start in range(0, len(losses), t.settings.log_every):
        some = losses[start : start + t.settings.log_every]
        step = first + start + len(some)
        rate = full_rate * t.schedule.factor(step - 1)  # of the last update of these; schedules count from 0
        t.run.log(step, t.progress.epoch + 1, {"train/loss": float(np.mean(some)), "train/lr": rate})


def check_finite(t: Training, first: int, losses: list[float], updates: list[IntArray]) -> None:
    """Stop at a loss that is not finite; the first of these updates is number `first`, counted from 1."""
    for place, loss in enumerate(losses):
        if math.isfinite(loss):
            continue
        rows = updates[place]
        shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS]) + (", ..." if len(rows) > _SHOWN_ROWS else "")
        lengths = ", ".join(str(n) for n in t.train.rows.host_lengths[rows[:_SHOWN_ROWS]])
        raise NotFinite(
            f"the loss is {loss} at update {first + place} (epoch {t.progress.epoch + 1}; {len(rows)} rows of train, "
            f"counted from 0: {shown}; lengths {lengths}); lower optimizer.lr or train.clip_norm"
        )
