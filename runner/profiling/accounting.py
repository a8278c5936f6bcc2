"""The cost of a run: seconds by phase, real and padded tokens, and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, with_config

from runner.common.records import (
    PADDING_CAUSES,
    SECONDS_KEYS,
    CharactersRecord,
    EnergyRecord,
    LengthRecord,
    MemoryRecord,
    PaddingRecord,
    SecondsRecord,
    SpeedRecord,
)

Mark = float | torch.cuda.Event
Counts = Mapping[str, int]  # by name
Counters = Mapping[str, Counts]  # by group


class Clock:
    """A stopwatch of seconds by phase, which does not wait for the device.

    On a GPU the time of a phase passes between two events that the device records. `synchronize` reads them, between
    timed regions; only then are the `seconds` by phase complete. `started` is the program's start in Unix time.
    """

    def __init__(self, device: torch.device, started: float) -> None:
        self.device, self.started = device, started
        self.seconds = dict.fromkeys(SECONDS_KEYS, 0.0)
        self._last = self._mark()
        self._pending: list[tuple[str, Mark, Mark]] = []

    def start(self) -> Mark:
        """Start a phase, and return the current moment; the time since the last phase is not counted."""
        self._last = self._mark()
        return self._last

    def lap(self, phase: str) -> Mark:
        """Add the time since the last call to `phase`, and return the current moment."""
        now = self._mark()
        if isinstance(now, float):
            self.seconds[phase] += _seconds(self._last, now)
        else:
            self._pending.append((phase, self._last, now))
        self._last = now
        return now

    def synchronize(self) -> float:
        """Wait for the device, add up the seconds of its events, and return the time of the host's clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            for phase, begin, end in self._pending:
                self.seconds[phase] += _seconds(begin, end)
            self._pending.clear()
        return time.perf_counter()

    def intervals(self, marks: Sequence[Mark]) -> list[float]:
        """Return the seconds from each moment to the next; on a GPU, call `synchronize` first."""
        return [_seconds(begin, end) for begin, end in pairwise(marks)]

    def record(self) -> SecondsRecord:
        """Return the `seconds` section of result.json."""
        return {
            "data": self.seconds["data"],
            "forward": self.seconds["forward"],
            "backward": self.seconds["backward"],
            "optimizer": self.seconds["optimizer"],
            "evaluation": self.seconds["evaluation"],
            "tracking": self.seconds["tracking"],
            "startup": self.seconds["startup"],
            "total": self.total(),
        }

    def total(self) -> float:
        """Return the seconds since the program started, plus those of the earlier programs of a resumed run."""
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


@with_config(ConfigDict(strict=True, revalidate_instances="always"))
@dataclass
class CostCounters:
    """Host-side counts over all updates. They are part of every checkpoint, so a resumed run's figures are complete."""

    real_tokens: int = 0  # without padding
    padded_tokens: int = 0
    supervised: int = 0  # targets
    examples: int = 0  # rows
    updates: int = 0  # optimiser steps
    training_seconds: float = 0.0  # time of the updates, by the host's clock
    # Without the warm-up:
    timed_tokens: int = 0
    timed_examples: int = 0
    timed_updates: int = 0
    timed_seconds: float = 0.0
    timed_pieces: int = 0  # pieces of words, if the model reads these
    # Padding by cause, in what the model reads: tokens, or pieces of words.
    padding: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PADDING_CAUSES, 0))
    # Timed updates, by the length of their longest row, in what the model reads, rounded up to a power of two:
    # `updates`, `real_tokens`, `places` (real and padded tokens or pieces) and `seconds`.
    by_length: dict[int, dict[str, float]] = field(default_factory=dict)
    # Counts of the model's parts (`runner.interfaces.HasCounters`), and energy. None: unknown, since a reading is
    # missing.
    counters: dict[str, dict[str, int]] | None = field(default_factory=dict)
    joules: float | None = 0.0

    def add(
        self,
        *,
        tokens: int,
        padded_tokens: int,
        pieces: int = 0,
        examples: int,
        updates: int,
        supervised: int,
        seconds: float,
        timed: bool,
        padding: Counts,
    ) -> None:
        """Add some updates; `padding` is by cause, in what the model reads; `timed` is false for the warm-up."""
        self.real_tokens += tokens
        self.padded_tokens += padded_tokens
        self.examples += examples
        self.updates += updates
        self.supervised += supervised
        self.training_seconds += seconds
        for cause, padded in padding.items():
            self.padding[cause] += padded
        if timed:
            self.timed_tokens += tokens
            self.timed_pieces += pieces
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
        """Add the difference of two readings of the meter; if one is missing, the sum is unknown from then on."""
        if self.joules is None or before is None or after is None:
            self.joules = None
        else:
            self.joules += after - before

    def add_length(self, longest: int, *, updates: int, real_tokens: int, places: int, seconds: float) -> None:
        """Add some timed updates whose longest row has up to `longest` tokens."""
        added = {"updates": updates, "real_tokens": real_tokens, "places": places, "seconds": seconds}
        before = self.by_length.get(longest, {})
        self.by_length[longest] = {key: value + before.get(key, 0) for key, value in added.items()}

    @property
    def work(self) -> tuple[int, int, float]:
        """The real tokens, the real pieces of words (0 if the model reads none) and the seconds of training so far."""
        pieces = (self.counters or {}).get("pieces", {}).get("real", 0)
        return self.real_tokens, pieces, self.training_seconds

    @property
    def padding_share(self) -> float:
        """The share of padding among all positions that were computed, 0 to 1: of pieces, if the model reads these."""
        pieces = (self.counters or {}).get("pieces")
        real, padded = (self.real_tokens, self.padded_tokens) if pieces is None else (pieces["real"], pieces["padded"])
        return padded / max(1, real + padded)

    def state(self) -> dict[str, object]:
        """Return a copy of all counts, for a checkpoint."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> CostCounters:
        """Return the counters of a `state`. What the checkpoint of an earlier version lacks is unknown from then on."""
        known = {name: state[name] for name in (entry.name for entry in fields(cls)) if name in state}
        return cls(**{"counters": None, "joules": None} | known)

    def energy(self, source: str) -> EnergyRecord | None:
        """Return the `energy` section of result.json, or None if the energy is unknown."""
        if self.joules is None or not self.real_tokens:
            return None
        per_thousand = 1000 * self.joules / self.real_tokens
        return {"joules": self.joules, "joules_per_thousand_tokens": per_thousand, "source": source}

    def padding_record(self) -> PaddingRecord:
        """Return the `padding` section of result.json."""
        padding = self.padding
        return {"spread": padding["spread"], "last_batch": padding["last_batch"], "rounding": padding["rounding"]}

    def characters_record(self) -> CharactersRecord | None:
        """Return the `characters` section of result.json; None if there were none, or their number is unknown."""
        characters = (self.counters or {}).get("characters")
        return None if characters is None else {"real": characters["real"], "padded": characters["padded"]}

    def other_counters(self) -> dict[str, dict[str, int]]:
        """Return the `counters` section of result.json: those of the model's parts, except for `characters`."""
        return {group: counts for group, counts in (self.counters or {}).items() if group != "characters"}

    def speed(self, warmup_updates: int) -> SpeedRecord:
        """Return the `speed` section of result.json: rates over the timed updates."""
        seconds = self.timed_seconds or float("nan")
        of_pieces: SpeedRecord = {"pieces_per_s": self.timed_pieces / seconds} if self.timed_pieces else {}
        return {
            "real_tokens_per_s": self.timed_tokens / seconds,
            **of_pieces,
            "examples_per_s": self.timed_examples / seconds,
            "updates_per_s": self.timed_updates / seconds,
            "timed_updates": self.timed_updates,
            "warmup_updates": warmup_updates,
            "by_length": [_length_record(longest, self.by_length[longest]) for longest in sorted(self.by_length)],
        }


def _length_record(longest: int, sums: dict[str, float]) -> LengthRecord:
    updates, tokens, places = (int(sums[key]) for key in ("updates", "real_tokens", "places"))
    return {"longest": longest, "updates": updates, "real_tokens": tokens, "places": places, "seconds": sums["seconds"]}


class Memory:
    """The peak memory since this object was made: of torch's allocator on a GPU, of the process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.source = "cuda allocator" if device.type == "cuda" else "resident set of the process"
        if device.type == "cuda":
            self.before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.before = _status_bytes("VmRSS:") or _resident_peak_bytes()
            _reset_resident_peak()

    def state(self) -> MemoryRecord:
        """Return the measured part of the `memory` section of result.json."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _resident_peak_bytes()
        return {"peak_bytes": peak, "before_training_bytes": self.before, "source": self.source}


def _status_bytes(key: str) -> int | None:
    """Return the value of a line of /proc/self/status in bytes, or None if the system has none (not Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)


def _resident_peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return _status_bytes("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_resident_peak() -> None:
    """Reset the peak of this process, if the system can (Linux); otherwise it covers the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM (man proc_pid_clear_refs)
