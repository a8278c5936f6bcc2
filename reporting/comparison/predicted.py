"""Predictions of speed and memory (by `batching=auto` or `hydromel-plan --json`), with the measurements of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from reporting.runs import measures
from reporting.runs.run import TITLE, Run
from reporting.runs.settings import batch_size
from runner.common.errors import HydromelError
from runner.common.records import CandidateRecord, parse_candidate


@dataclass(frozen=True)
class PredictedPlan:
    """The predictions in a file of `hydromel-plan --json`, and the title of the group that they are for."""

    title: str
    candidates: list[CandidateRecord]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one strategy at one batch size; medians over runs. What was not measured is None."""

    name: str
    batch_size: int | None
    chosen: int  # number of `auto` runs that chose this strategy
    predicted_tokens_per_s: float
    tokens_per_s: float | None
    predicted_peak_bytes: float
    peak_bytes: float | None


def read_plan(path: Path) -> PredictedPlan:
    """Read a file that `hydromel-plan --json` wrote. Raises HydromelError for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title = " · ".join(str(content["choices"][name]) for name in TITLE)
        plans = [plan["predicted"] for plan in content["planned"] if plan["predicted"] is not None]
        candidates = [parse_candidate(plan, f"--predicted {path}") for plan in plans]
    except OSError as error:
        raise HydromelError(f"--predicted {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HydromelError(f"--predicted {path}: not written by hydromel-plan --json ({error})") from error
    if not candidates:
        raise HydromelError(f"--predicted {path}: it holds no predictions; write it again without --no-probe")
    return PredictedPlan(title, candidates)


def predictions(runs: Sequence[Run], planned: Iterable[CandidateRecord], measured: bool) -> list[Prediction]:
    """Return all predictions by the runs' own advice or by a plan, with what the runs measured.

    Measurements are filled in if `measured`: those of runs on several machines cannot be pooled.
    """
    by_key: dict[tuple[str, int | None], list[CandidateRecord]] = {}
    advised = [advice.get("candidates", []) for run in runs if (advice := run.result.get("advice"))]
    for candidate in chain(*advised, planned):
        by_key.setdefault((candidate["name"], candidate["batch_size"]), []).append(candidate)
    made = []
    for (name, size), candidates in by_key.items():
        own = [run for run in runs if _used(run) == (name, json.dumps(size))]
        speeds = measures.values(own, measures.speed) if measured else []
        peaks = measures.values(own, measures.figure("memory.peak_bytes")) if measured else []
        prediction = Prediction(
            name,
            size,
            chosen=sum(run.result.get("advice") is not None for run in own),
            predicted_tokens_per_s=median(candidate["predicted_real_tokens_per_s"] for candidate in candidates),
            tokens_per_s=median(speeds) if speeds else None,
            predicted_peak_bytes=median(candidate["predicted_peak_bytes"] for candidate in candidates),
            peak_bytes=median(peaks) if peaks else None,
        )
        made.append(prediction)
    return made


def _used(run: Run) -> tuple[str, str]:
    """Return strategy and batch size, which the run has by itself or because `auto` chose them."""
    if advice := run.result.get("advice"):
        return advice["chosen"], json.dumps(advice["batch_size"])
    return run.strategy, batch_size(run)
