"""What was predicted of strategies (`batching=auto`, `hydromel-plan --json`) beside what was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.runs.run import Run
from reporting.runs.variants import BATCH_SIZE, options
from runner.common.errors import HydromelError

TITLE = ("task", "dataset", "embedding", "encoder")


@dataclass(frozen=True)
class Plan:
    """What a file of `hydromel-plan --json` predicts, and of what: the title that groups have."""

    title: str
    candidates: list[Mapping[str, Any]]


@dataclass(frozen=True)
class Prediction:
    """Of one strategy at one batch size; medians over runs. What was not measured is None."""

    name: str
    batch_size: int | None
    chosen: int  # runs of `auto` that went on as this
    predicted_tokens_per_s: float
    tokens_per_s: float | None
    predicted_peak_bytes: float
    peak_bytes: float | None


def read_plan(path: Path) -> Plan:
    """A file that `hydromel-plan --json` wrote. Raises HydromelError for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title = " · ".join(str(content["choices"][name]) for name in TITLE)
        candidates = [one["predicted"] for one in content["planned"] if one["predicted"] is not None]
        if not all(map(_is_whole, candidates)):
            raise ValueError("a strategy lacks figures")
    except OSError as error:
        raise HydromelError(f"--predicted {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HydromelError(f"--predicted {path}: not written by hydromel-plan --json ({error})") from error
    if not candidates:
        raise HydromelError(f"--predicted {path}: it predicts nothing; make it without --no-probe")
    return Plan(title, candidates)


def predictions(runs: Sequence[Run], planned: Iterable[Mapping[str, Any]], measured: bool) -> list[Prediction]:
    """All that the runs' own advice or a plan says, scored by the runs that were made.

    Args:
        measured: whether to score at all; runs of several machines are no measure.
    """
    by_key: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for candidate in [*(one for run in runs for one in _candidates(run)), *planned]:
        by_key.setdefault((candidate["name"], candidate["batch_size"]), []).append(candidate)
    return [_prediction(key, said, [run for run in runs if _is(run, *key)], measured) for key, said in by_key.items()]


def _candidates(run: Run) -> list[Mapping[str, Any]]:
    """What a run of `auto` was told; a damaged record says nothing."""
    said = run.value("advice.candidates")
    return [one for one in said if _is_whole(one)] if isinstance(said, list) else []


def _is_whole(one: Any) -> bool:
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or "batch_size" not in one:
        return False
    return all(isinstance(one.get(f"predicted_{key}"), int | float) for key in ("real_tokens_per_s", "peak_bytes"))


def _is(run: Run, name: str, batch_size: int | None) -> bool:
    """Whether the run is one of this strategy and batch size, or of `auto` that chose them."""
    if isinstance(advice := run.value("advice"), Mapping):
        return bool(advice.get("chosen") == name and advice.get("batch_size") == batch_size)
    return run.strategy == name and options(run).get(BATCH_SIZE, "null") == json.dumps(batch_size)


def _prediction(
    key: tuple[str, int | None], said: list[Mapping[str, Any]], runs: list[Run], measured: bool
) -> Prediction:
    def median(path: str) -> float | None:
        values = [value for run in runs if (value := run.number(path)) is not None]
        return statistics.median(values) if values and measured else None

    return Prediction(
        *key,
        chosen=sum(run.value("advice") is not None for run in runs),
        predicted_tokens_per_s=statistics.median(one["predicted_real_tokens_per_s"] for one in said),
        tokens_per_s=median("speed.real_tokens_per_s"),
        predicted_peak_bytes=statistics.median(one["predicted_peak_bytes"] for one in said),
        peak_bytes=median("memory.peak_bytes"),
    )
