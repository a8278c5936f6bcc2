"""Finished runs, read from their folders or from MLflow, and which of them a name on the command line means."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import HydromelError, did_you_mean
from runner.names import METRICS, RESULT, RUN

NAMES_SHOWN = 12  # of the sweeps and experiments that are there, when none fits
# what a comparison cannot do without; everything else may be missing and is then shown as a dash
REQUIRED: dict[str, type] = {
    "run_id": str,
    "task": str,
    "dataset": str,
    "embedding": str,
    "encoder": str,
    "batching": str,
    "seed": int,
    "quality.metric": str,
    "quality.higher_is_better": bool,
    "updates.count": int,
    "updates.digest": str,
    "provenance.comparison_hash": str,
}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on valid, `seconds` of training after the start (evaluation and tracking left out)."""

    step: int
    seconds: float
    quality: float


@dataclass(frozen=True)
class Run:
    """A finished run. `created` is unix seconds."""

    folder: Path
    created: float
    result: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    def value(self, path: str) -> Any:
        """What stands at a dotted path of result.json; None where there is nothing."""
        return _at(self.result, path)

    def text(self, path: str) -> str:
        """The value at a dotted path as text; empty where there is none."""
        value = self.value(path)
        return "" if value is None else str(value)

    def number(self, path: str) -> float | None:
        """The finite number at a dotted path; None where there is none, or NaN, or infinity."""
        return _finite(self.value(path))

    @property
    def strategy(self) -> str:
        return self.text("batching")

    @property
    def seed(self) -> int:
        return int(self.result["seed"])

    @property
    def metric(self) -> str:
        return self.text("quality.metric")

    @property
    def updates(self) -> tuple[int, str]:
        """(count, digest): equal pairs saw the same rows in every update."""
        return int(self.value("updates.count")), self.text("updates.digest")


@dataclass(frozen=True)
class Found:
    """A run's folder: finished (`run`), damaged (`problem` says how), or neither (`status` says why)."""

    folder: Path
    sweep_id: str | None
    experiment: str | None
    status: str
    run: Run | None = None
    problem: str | None = None


def find(whats: list[str], runs: Path) -> list[Found]:
    """What `whats` name, each run once; with no names, everything below `runs`. HydromelError if nothing is there."""
    found = [item for what in whats for item in _select(what, runs)] if whats else scan(runs)
    if not found:
        raise HydromelError(f"no run below {runs}/; make one with `hydromel`, or name another folder with --runs")
    return unique(found)


def unique(found: list[Found]) -> list[Found]:
    """Each run once: a copy (an MLflow artifact, say) has the same record, run_id and all, and does not count again."""
    first: dict[object, Found] = {}
    for item in found:
        first.setdefault(json.dumps(item.run.result, sort_keys=True) if item.run else item.folder.resolve(), item)
    return list(first.values())


def scan(root: Path) -> list[Found]:
    """Every run below `root`, in the order of their paths."""
    return [read(folder) for folder in _folders(root)]


def read(folder: Path) -> Found:
    """The run in `folder`, finished or not. Never raises for damaged records: they are told in `problem`."""
    try:
        about = _read_object(folder / RUN) if (folder / RUN).exists() else {}
    except HydromelError as error:
        return Found(folder, None, None, "damaged", problem=str(error))
    sweep_id, experiment = _text(about, "sweep_id"), _text(about, "experiment")
    path = folder / RESULT
    if not path.exists():
        return Found(folder, sweep_id, experiment, _text(about, "status") or "unknown")
    try:
        result = _read_object(path)
        _check(result, path)
        evaluations = _read_evaluations(folder / METRICS, f"valid/{result['quality']['metric']}")
    except HydromelError as error:
        return Found(folder, sweep_id, experiment, "damaged", problem=str(error))
    created = _finite(about.get("created"))
    run = Run(folder, path.stat().st_mtime if created is None else created, result, evaluations)
    names = _text(result, "sweep_id") or sweep_id, _text(result, "experiment") or experiment
    return Found(folder, *names, "finished", run)


def _select(what: str, runs: Path) -> list[Found]:
    """The runs below the folder `what`; or those of the sweep, or the experiment, called `what` below `runs`."""
    if Path(what).is_dir() and (found := scan(Path(what))):
        return found
    everything = scan(runs)
    below = (runs / what).resolve()
    found = [
        item
        for item in everything
        if what in (item.sweep_id, item.experiment) or item.folder.resolve().is_relative_to(below)
    ]
    if not found:
        names = sorted({name for item in everything for name in (item.sweep_id, item.experiment) if name})
        there = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
        raise HydromelError(
            f"no run fits '{what}': not a folder with runs, nor a sweep or an experiment below {runs}/"
            f"{did_you_mean(what, names)} There: {there or 'no named sweep or experiment'}"
        )
    return found


def _folders(root: Path) -> Iterator[Path]:
    for name, below, files in os.walk(root):
        if RUN in files or RESULT in files:
            below.clear()  # a run's own folders hold no other runs
            yield Path(name)
        below.sort()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HydromelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise HydromelError(f"{path} is damaged: it holds a {type(record).__name__}, not an object")
    return record


def _check(result: Mapping[str, Any], path: Path) -> None:
    for key, kind in REQUIRED.items():
        value = _at(result, key)
        if type(value) is not kind:
            raise HydromelError(f"{path} is damaged: {key}={value!r}, but it must be of type {kind.__name__}")


def _read_evaluations(path: Path, key: str) -> tuple[Evaluation, ...]:
    """The evaluations in metrics.jsonl. After a resume, steps written again replace those before them.

    Raises HydromelError for a line that is not a record. A run without the file has no evaluations.
    """
    evaluations: list[Evaluation] = []
    if not path.exists():
        return ()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if f'"{key}"' not in line:  # parsing the rest would be most of the time
            continue
        try:
            record = json.loads(line)
            step, seconds, quality = int(record["step"]), record["metrics"]["train/seconds"], record["metrics"][key]
        except (ValueError, KeyError, TypeError) as error:
            raise HydromelError(f"{path}:{number} is damaged: no step, train/seconds and {key} in it") from error
        while evaluations and evaluations[-1].step >= step:
            evaluations.pop()
        if (at := _finite(seconds)) is not None and (value := _finite(quality)) is not None:  # null: not finite
            evaluations.append(Evaluation(step, at, value))
    return tuple(evaluations)


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return None if value is None else str(value)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
