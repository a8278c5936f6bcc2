"""Seconds by phase, counts and memory."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from runner.profiling.accounting import Clock, CostCounters
from runner.training.bookkeeping import group_by_length

CPU = torch.device("cpu")
NO_PADDING = {"spread": 0, "last_batch": 0, "rounding": 0}


def test_a_lap_belongs_to_its_phase_and_a_start_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 11.0, 13.0, 20.0, 24.0, 99.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock(CPU, 0.0)  # 0
    clock.start()  # 10: what was before belongs to no phase
    clock.lap("data")  # 11
    clock.lap("forward")  # 13
    clock.start()  # 20
    clock.lap("data")  # 24
    clock.synchronize()
    assert {phase: seconds for phase, seconds in clock.seconds.items() if seconds} == {"data": 5.0, "forward": 2.0}


def test_total_counts_the_programs_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 107.0)
    clock = Clock(CPU, started=100.0)
    assert clock.total() == 7.0
    clock.seconds["total"] = 30.0  # of a run that was taken up
    assert clock.total() == 37.0


def test_warm_up_is_counted_but_not_timed() -> None:
    account = CostCounters()
    padding = {"spread": 3, "last_batch": 0, "rounding": 1}
    common = {"supervised": 7, "padding": padding, "padded_tokens": 4}
    account.add(tokens=100, examples=4, updates=2, seconds=9.0, timed=False, **common)  # type: ignore[arg-type]
    account.add(tokens=60, examples=3, updates=1, seconds=2.0, timed=True, **common)  # type: ignore[arg-type]
    assert (account.real_tokens, account.examples, account.updates, account.supervised) == (160, 7, 3, 14)
    assert account.training_seconds == 11.0
    assert account.padded_tokens == 8
    assert account.speed(2) == {
        "real_tokens_per_s": 30.0,
        "examples_per_s": 1.5,
        "updates_per_s": 0.5,
        "timed_updates": 1,
        "warmup_updates": 2,
        "by_length": [],
    }
    assert CostCounters.of(account.state()) == account


def test_times_by_length_add_up_and_come_from_short_to_long() -> None:
    account = CostCounters()
    account.add_length(16, updates=2, real_tokens=40, places=64, seconds=0.5)
    account.add_length(4, updates=1, real_tokens=5, places=8, seconds=0.25)
    account.add_length(16, updates=1, real_tokens=30, places=32, seconds=0.125)
    assert account.speed(0)["by_length"] == [
        {"longest": 4, "updates": 1, "real_tokens": 5, "places": 8, "seconds": 0.25},
        {"longest": 16, "updates": 3, "real_tokens": 70, "places": 96, "seconds": 0.625},
    ]
    assert CostCounters.of(account.state()) == account


def test_joules_are_known_whole_or_not_at_all() -> None:
    account = CostCounters(real_tokens=500)
    account.add_joules(10.0, 14.0)
    account.add_joules(20.0, 21.0)
    assert account.energy("NVML") == {"joules": 5.0, "joules_per_thousand_tokens": 10.0, "source": "NVML"}
    for readings in ((1.0, None), (None, 1.0)):
        other = CostCounters.of(account.state())
        other.add_joules(*readings)
        other.add_joules(1.0, 2.0)
        assert other.energy("NVML") is None
    assert CostCounters().energy("NVML") is None  # no token, no rate


def test_what_an_older_checkpoint_lacks_is_unknown() -> None:
    state = CostCounters().state()
    del state["counters"], state["joules"], state["by_length"]
    account = CostCounters.of(state)
    account.add_counters({"characters": {"real": 0}}, {"characters": {"real": 7}})
    account.add_joules(1.0, 2.0)
    assert account.counters is account.joules is None


def test_updates_stand_under_the_next_power_of_two() -> None:
    longest = np.arange(0, 5000)
    actual = {place: power for power, places in group_by_length(longest) for place in places}
    for length in longest.tolist():
        power = 1
        while power < length:
            power *= 2
        assert actual[length] == power


def test_seconds_between_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock(CPU, 0.0)
    marks = [clock.start(), clock.lap("data"), clock.lap("optimizer"), clock.lap("optimizer")]
    assert clock.intervals(marks) == [1.0, 3.0, 4.0]


def test_no_timed_update_has_no_speed() -> None:
    assert math.isnan(CostCounters().speed(10)["real_tokens_per_s"])


PEAK = """
import numpy, torch
from runner.profiling.accounting import Memory
big = numpy.ones(16_000_000)  # 128 MB
del big
memory = Memory(torch.device("cpu"))
print(memory.state()["peak_bytes"] - memory.before)
held = numpy.ones(16_000_000)
print(memory.state()["peak_bytes"] - memory.before, held.sum())
"""


def test_peak_memory_is_that_of_what_came_after() -> None:
    """In a process of its own: what ran before in this one leaves freed memory, into which new arrays fit."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after, _ = map(float, done.stdout.split())
    if before > 50_000_000:
        pytest.skip("this system does not forget a process's peak")
    assert 100_000_000 < after < 250_000_000
