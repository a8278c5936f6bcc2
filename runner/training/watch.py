"""The bar of a run in training. It reads, a few times per second, what the loop and its bookkeeping count anyway."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from runner.terminal.progress import Stage, clock, stage
from runner.training.state import Training

_SAMPLES = 25  # readings over which the speed is measured


def watched(t: Training) -> AbstractContextManager[Stage]:
    """Return a context with a bar of the current epoch: tokens per second, loss, and the time that is left."""
    return stage("preparing", look=looker(t))


def looker(t: Training) -> Callable[[Stage], None]:
    """Return the function that updates the bar."""
    epochs, first, started = t.settings.epochs, t.progress.updates, time.monotonic()
    readings: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)  # times, and updates until then

    def look(bar: Stage) -> None:
        live, updates, now = t.live, t.progress.updates, time.monotonic()
        if not live.epoch_updates:  # before the first epoch
            return
        if readings and readings[0][1] < live.before_epoch:  # between two epochs lies an evaluation
            readings.clear()
        if not readings or updates > readings[-1][1]:
            readings.append((now, updates))
        bar.label = f"epoch {min(t.progress.epoch + 1, epochs)}/{epochs}"
        bar.total, bar.done = live.epoch_updates, updates - live.before_epoch
        (began, before), (ended, after) = readings[0], readings[-1]
        parts = []
        if epochs > 1 and updates > first:
            total = min(epochs * live.epoch_updates, t.settings.max_updates or math.inf)
            parts.append(f"(all epochs {clock((now - started) / (updates - first) * max(0, total - updates))})")
        if after > before:
            tokens = t.train.real_tokens / live.epoch_updates  # per update, on average
            parts.append(f"{tokens * (after - before) / (ended - began):,.0f} tok/s")
        if live.losses:
            parts.append(f"loss {sum(live.losses) / len(live.losses):.4f}")
        bar.detail = "  ".join(parts)

    return look
