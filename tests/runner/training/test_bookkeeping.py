"""Records of the loss: no mean over few updates, the same ones however training was interrupted, and the bar of it."""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runner.profiling.accounting import CostCounters
from runner.terminal.progress import Stage
from runner.training import watch
from runner.training.bookkeeping import record_losses, report_epoch
from runner.training.state import Live


def training(every: int) -> Any:
    records: list[tuple[int, dict[str, float]]] = []
    return SimpleNamespace(
        progress=SimpleNamespace(unrecorded=[], updates=0, epoch=0),
        settings=SimpleNamespace(log_every=every),
        optimizer=SimpleNamespace(param_groups=[{"initial_lr": 2.0}]),
        schedule=SimpleNamespace(factor=lambda step: 1 / (step + 1)),
        run=SimpleNamespace(log=lambda step, epoch, figures: records.append((step, figures))),
        records=records,
    )


def recorded(every: int, parts: list[int]) -> list[tuple[int, dict[str, float]]]:
    """The records of an epoch whose updates, with losses 1, 2, ..., come in parts."""
    t = training(every)
    for size in parts:
        for _ in range(size):
            t.progress.updates += 1
            t.progress.unrecorded.append((float(t.progress.updates), 10.0 * t.progress.updates))
        record_losses(t, is_complete=False)
    record_losses(t, is_complete=True)
    return t.records


@pytest.mark.parametrize("every", [1, 2, 3, 20, 50])
def test_no_window_is_short_and_interruptions_change_none(every: int) -> None:
    for n in (1, 2, 3, 19, 20, 21, 29, 30, 31, 156, 161):
        whole = recorded(every, [n])
        steps = [step for step, _ in whole]
        sizes = np.diff([0, *steps])
        assert steps[-1] == n
        assert sizes.max() < max(2, 1.5 * every)
        assert len(sizes) == 1 or sizes.min() >= every / 2
        for cuts in ([7] * (n // 7) + [n % 7], [n // 2, n - n // 2], [1] * n):
            assert recorded(every, cuts) == whole
        first, figures = whole[0]
        assert figures["train/loss"] == pytest.approx((1 + first) / 2)
        assert figures["train/gradient_norm"] == pytest.approx(5 * (1 + first))
        assert figures["train/gradient_norm_max"] == 10 * first
        assert figures["train/lr"] == pytest.approx(2 / first)


def test_the_bar_reads_what_the_loop_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    t: Any = SimpleNamespace(
        progress=SimpleNamespace(updates=0, epoch=0),
        settings=SimpleNamespace(epochs=3, max_updates=None),
        train=SimpleNamespace(real_tokens=1000),
        live=Live(),
    )
    look = watch.looker(t)
    bar = Stage("preparing")
    look(bar)
    assert bar.label == "preparing", "there is no epoch yet"
    t.live.epoch_updates = 10
    look(bar)
    assert (bar.label, bar.total, bar.done, bar.detail) == ("epoch 1/3", 10, 0, "")
    t.progress.updates = 5
    t.live.losses.extend([1.0, 2.0])
    look(bar)
    assert (bar.done, bar.detail) == (5, "(all epochs 0:15)  500 tok/s  loss 1.5000")
    t.progress.epoch, t.progress.updates, t.live.before_epoch = 1, 11, 10
    look(bar)
    assert (bar.label, bar.done) == ("epoch 2/3", 1)
    assert "tok/s" not in bar.detail, "the evaluation between the epochs is no training"


def test_the_line_of_an_epoch_has_its_own_speed_and_seconds(caplog: pytest.LogCaptureFixture) -> None:
    costs = CostCounters(real_tokens=3000, training_seconds=3.0, counters={"pieces": {"real": 5000, "padded": 0}})
    t: Any = SimpleNamespace(
        progress=SimpleNamespace(last_epoch=2, updates=20),
        costs=costs,
        live=Live(cost_before=(1000, 1000, 1.0)),
        metric_name="f1",
        measures=SimpleNamespace(scales={"f1": SimpleNamespace(unit="%")}),
        clock=SimpleNamespace(total=lambda: 0.0),
    )
    with caplog.at_level(logging.INFO):
        report_epoch(t, {"f1": 50.0, "loss": 1.0}, 0.5)
    (line,) = caplog.messages
    assert "  1,000 tok/s    2,000 pieces/s  padding  0.0 %    2.0 s, in all 3.0 s" in line
