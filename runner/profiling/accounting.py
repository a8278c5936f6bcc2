"""The cost of a run: seconds by phase, tokens real and padded, and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from runner.common.run_schema import PADDING_CAUSES, SECONDS_KEYS

Mark = float | torch.cuda.Event
Counters = Mapping[str, Mapping[str, int]]  # group -> name -> count


class Clock:
    """Seconds by phase, without waiting for the device.

    On a GPU a phase's time is what passes on the device between two recorded events; they are read in `settle`,
    which waits for the device, between timed regions.

    Args:
        device: whose time is measured.
        started: unix time at which the program started, for `total`.
    """

    def __init__(self, device: torch.device, started: float) -> None:
        self.device, self.started = device, started
        self.seconds = dict.fromkeys(SECONDS_KEYS, 0.0)
        self._last = self._mark()
        self._pending: list[tuple[str, Mark, Mark]] = []

    def start(self) -> Mark:
        """What passed since the last phase belongs to none; this moment."""
        self._last = self._mark()
        return self._last

    def lap(self, phase: str) -> Mark:
        """What passed since the last mark belongs to `phase`; this moment."""
        now = self._mark()
        if isinstance(now, float):
            self.seconds[phase] += _seconds(self._last, now)
        else:
            self._pending.append((phase, self._last, now))
        self._last = now
        return now

    def settle(self) -> float:
        """Wait for the device, add up what is pending, and give the host's clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            for phase, begin, end in self._pending:
                self.seconds[phase] += _seconds(begin, end)
            self._pending.clear()
        return time.perf_counter()

    def between(self, marks: Sequence[Mark]) -> list[float]:
        """Seconds from each mark to the next; on a GPU to be asked after `settle`."""
        return [_seconds(begin, end) for begin, end in pairwise(marks)]

    def total(self) -> float:
        """Seconds since the program started, and those of earlier programs whose run this one took up."""
        return self.seconds["total"] + time.time() - self.started

    def _mark(self) -> Mark:
        if self.device.type != "cuda":
            return time.perf_counter()
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _seconds(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float):
        assert isinstance(end, float)
        return end - begin
    assert isinstance(end, torch.cuda.Event)
    return float(begin.elapsed_time(end)) / 1000


@dataclass
class CostCounters:
    """Host-side counts over all training updates; part of every checkpoint, so a resumed run's figures are whole."""

    real_tokens: int = 0
    supervised: int = 0
    examples: int = 0
    updates: int = 0
    training_seconds: float = 0.0
    timed_tokens: int = 0
    timed_examples: int = 0
    timed_updates: int = 0
    timed_seconds: float = 0.0
    padding: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PADDING_CAUSES, 0))
    by_length: dict[int, dict[str, float]] = field(default_factory=dict)  # timed updates, by their longest row
    counters: dict[str, dict[str, int]] | None = field(default_factory=dict)  # of the model's parts; None: unknown
    joules: float | None = 0.0  # None: unknown, at least of a part

    def add(
        self,
        *,
        tokens: int,
        examples: int,
        updates: int,
        supervised: int,
        seconds: float,
        timed: bool,
        padding: dict[str, int],
    ) -> None:
        """What some updates took; `padding` in tokens by cause, `timed` if they are no warm-up."""
        self.real_tokens += tokens
        self.examples += examples
        self.updates += updates
        self.supervised += supervised
        self.training_seconds += seconds
        for cause, padded in padding.items():
            self.padding[cause] += padded
        if timed:
            self.timed_tokens += tokens
            self.timed_examples += examples
            self.timed_updates += updates
            self.timed_seconds += seconds

    def add_counters(self, before: Counters, after: Counters) -> None:
        """Add the difference of two states of the model's counters (`runner.model.counters`)."""
        if self.counters is None:
            return
        for group, counts in after.items():
            sums, earlier = self.counters.setdefault(group, {}), before.get(group, {})
            for name, count in counts.items():
                sums[name] = sums.get(name, 0) + count - earlier.get(name, 0)

    def add_joules(self, before: float | None, after: float | None) -> None:
        """The difference of two readings; where one is missing, the sum is unknown from then on."""
        if self.joules is None or before is None or after is None:
            self.joules = None
        else:
            self.joules += after - before

    def add_length(self, longest: int, *, updates: int, real_tokens: int, places: int, seconds: float) -> None:
        """What some timed updates took, whose longest row has up to `longest` tokens; `places` are real and padded."""
        added = {"updates": updates, "real_tokens": real_tokens, "places": places, "seconds": seconds}
        before = self.by_length.get(longest, {})
        self.by_length[longest] = {key: value + before.get(key, 0) for key, value in added.items()}

    @property
    def padded_tokens(self) -> int:
        return sum(self.padding.values())

    def state(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> CostCounters:
        """Return the counters of a `state`. What the checkpoint of an earlier version lacks is unknown from then on."""
        known = {name: state[name] for name in (entry.name for entry in fields(cls)) if name in state}
        return cls(**{"counters": None, "joules": None} | known)

    def energy(self, source: str) -> dict[str, float | str] | None:
        """The `energy` section of result.json."""
        if self.joules is None or not self.real_tokens:
            return None
        per_thousand = 1000 * self.joules / self.real_tokens
        return {"joules": self.joules, "joules_per_thousand_tokens": per_thousand, "source": source}

    def speed(self, warmup_updates: int) -> dict[str, object]:
        """The `speed` section of result.json: rates over the timed updates."""
        seconds = self.timed_seconds or float("nan")
        return {
            "real_tokens_per_s": self.timed_tokens / seconds,
            "examples_per_s": self.timed_examples / seconds,
            "updates_per_s": self.timed_updates / seconds,
            "timed_updates": self.timed_updates,
            "warmup_updates": warmup_updates,
            "by_length": [{"longest": longest} | self.by_length[longest] for longest in sorted(self.by_length)],
        }


class Memory:
    """Peak memory of training: the allocator's on a GPU, the process's resident set on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.source = "cuda allocator" if device.type == "cuda" else "resident set of the process"
        if device.type == "cuda":
            self.before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.before = _resident_bytes()
            _reset_resident_peak()

    def state(self) -> dict[str, int | str]:
        """The `memory` section of result.json."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _resident_peak_bytes()
        return {"peak_bytes": peak, "before_training_bytes": self.before, "source": self.source}


def _status_bytes(key: str) -> int | None:
    """A line of /proc/self/status (Linux), in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return None


def _resident_bytes() -> int:
    return _status_bytes("VmRSS:") or _resident_peak_bytes()


def _resident_peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return _status_bytes("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_resident_peak() -> None:
    """Linux forgets a process's peak when 5 is written here; elsewhere the peak is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
