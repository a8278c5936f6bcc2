"""What is read from runs for one strategy: figures of a run, and what they come to over runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reporting.runs.run import Run, finite
from reporting.statistics.intervals import Slot
from runner.common.run_schema import SECONDS_KEYS

Measure = Callable[[Run], float | None]
PHASES = tuple(key for key in SECONDS_KEYS if key != "total")
PEAK_BATCH = ("rows", "width", "tokens")


@dataclass(frozen=True)
class LengthRate:
    """Speed of the updates whose longest row had more than half of `longest` tokens, and at most that."""

    longest: int
    real_tokens_per_s: float


def figure(path: str) -> Measure:
    """The finite number at a dotted path of result.json."""
    return lambda run: run.number(path)


def quality(run: Run) -> float | None:
    return run.number(f"metrics.{run.split}.{run.metric}")


speed = figure("speed.real_tokens_per_s")


def padding_share(path: str) -> Measure:
    """Padded tokens at this path as a share of all positions in memory, 0..1."""
    return lambda run: _share(run.number(path), run.number("tokens.real"), run.number("tokens.padded"))


def character_padding(run: Run) -> float | None:
    """Padded characters as a share of all that character models were given, 0..1."""
    padded = run.number("characters.padded")
    return _share(padded, run.number("characters.real"), padded)


def by_seed(runs: Mapping[int, Run], measure: Measure) -> dict[int, float]:
    return {seed: value for seed, run in runs.items() if (value := measure(run)) is not None}


def by_slot(runs: Iterable[Run], measure: Measure) -> dict[Slot, float]:
    """What pairs of runs are equal in but for the strategy: seed, turn and machine."""
    return {(run.seed, run.turn, run.machine): value for run in runs if (value := measure(run)) is not None}


def values(runs: Iterable[Run], measure: Measure) -> list[float]:
    return [value for run in runs if (value := measure(run)) is not None]


def mean(runs: Iterable[Run], measure: Measure) -> float | None:
    found = values(runs, measure)
    return sum(found) / len(found) if found else None


def means(runs: list[Run], measures: Mapping[str, Measure]) -> dict[str, float]:
    """The means of those measures that any run has."""
    found = {name: mean(runs, measure) for name, measure in measures.items()}
    return {name: value for name, value in found.items() if value is not None}


def texts(runs: Iterable[Run], path: str) -> list[str]:
    return sorted({text for run in runs if (text := run.text(path))})


def length_rates(runs: Iterable[Run]) -> list[LengthRate]:
    """Real tokens per second by the longest row of an update, over all runs: the sum of tokens over that of seconds."""
    sums: dict[int, list[float]] = {}
    for run in runs:
        for each in _list(run.value("speed.by_length")):
            figures = _numbers(each, ("longest", "real_tokens", "seconds"))
            if figures is None:
                continue
            total = sums.setdefault(int(figures[0]), [0.0, 0.0])
            total[0] += figures[1]
            total[1] += figures[2]
    return [LengthRate(longest, tokens / seconds) for longest, (tokens, seconds) in sorted(sums.items()) if seconds > 0]


def peak_batch(runs: Iterable[Run]) -> dict[str, int] | None:
    """The micro-batch that needed most memory, of the run whose peak was highest."""
    peaks = [
        (run.number("memory.peak_bytes") or 0.0, counts)
        for run in runs
        if (counts := _numbers(run.value("memory.peak_batch"), PEAK_BATCH)) is not None
    ]
    if not peaks:
        return None
    return {key: int(count) for key, count in zip(PEAK_BATCH, max(peaks)[1], strict=True)}


def halvings(runs: Iterable[Run]) -> list[str]:
    """A sentence for each run in which memory ran out."""
    said = []
    for run in runs:
        if at := _list(run.value("memory.micro_batch.halved_at")):
            used, asked = run.value("memory.micro_batch.used"), run.value("memory.micro_batch.asked")
            rows = "all rows of an update" if asked is None else f"{asked} rows"
            said.append(
                f"{run.strategy} seed {run.seed} ran out of memory {_updates(at)}: its micro-batch went from {rows} to "
                f"{used}; the updates stayed the same."
            )
    return said


def _updates(numbers: list[int]) -> str:
    """0 stands for what was tried before training."""
    during = [str(number) for number in numbers if number]
    parts = ["before training"] if len(during) < len(numbers) else []
    if during:
        parts.append(f"in update{'s' if during[1:] else ''} {', '.join(during)}")
    return " and ".join(parts)


def _share(part: float | None, one: float | None, other: float | None) -> float | None:
    return None if part is None or one is None or other is None or one + other == 0 else part / (one + other)


def _numbers(record: Any, keys: tuple[str, ...]) -> list[float] | None:
    """The finite numbers at these keys; None of a damaged record, which lacks one."""
    if not isinstance(record, Mapping):
        return None
    found = [value for key in keys if (value := finite(record.get(key))) is not None]
    return found if len(found) == len(keys) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
