"""A finished run, read from the records in its folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.common.errors import HydromelError
from runner.common.run_schema import METRICS, RESULT, RUN

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
MACHINE = ("host", "device", "cpu", "threads")  # keys of provenance


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on valid, `seconds` of training after the start (evaluation and tracking left out)."""

    step: int
    seconds: float
    quality: float
    tokens: float | None  # real tokens trained on until then


@dataclass(frozen=True)
class Run:
    """A finished run. `created` is unix seconds."""

    folder: Path
    created: float
    result: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    variant: str = ""  # ` width_multiple=8`: options of batching by which it differs from others of the same name

    def value(self, path: str) -> Any:
        """What stands at a dotted path of result.json; None where there is nothing."""
        return _at(self.result, path)

    def text(self, path: str) -> str:
        """The value at a dotted path as text; empty where there is none."""
        value = self.value(path)
        return "" if value is None else str(value)

    def number(self, path: str) -> float | None:
        """The finite number at a dotted path; None where there is none, or NaN, or infinity."""
        return finite(self.value(path))

    @property
    def strategy(self) -> str:
        return self.text("batching") + self.variant

    @property
    def seed(self) -> int:
        return int(self.result["seed"])

    @property
    def turn(self) -> int:
        """Number among equal runs, from 1; runs of before there were turns are of turn 1."""
        return int(self.result.get("turn", 1))

    @property
    def machine(self) -> tuple[str, ...]:
        """What times and memory depend on: they are compared where it is equal."""
        return tuple(self.text(f"provenance.{key}") for key in MACHINE)

    @property
    def metric(self) -> str:
        return self.text("quality.metric")

    @property
    def split(self) -> str:
        """On what its quality is measured: test, or valid where the data has no test."""
        return "test" if isinstance(self.value("metrics.test"), Mapping) else "valid"

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
    created = finite(about.get("created"))
    run = Run(folder, path.stat().st_mtime if created is None else created, result, evaluations)
    names = _text(result, "sweep_id") or sweep_id, _text(result, "experiment") or experiment
    return Found(folder, *names, "finished", run)


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
    if type(turn := result.get("turn", 1)) is not int:
        raise HydromelError(f"{path} is damaged: turn={turn!r}, but it must be of type int")


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
        if (at := finite(seconds)) is not None and (value := finite(quality)) is not None:  # null: not finite
            evaluations.append(Evaluation(step, at, value, finite(record["metrics"].get("train/tokens"))))
    return tuple(evaluations)


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return None if value is None else str(value)


def finite(value: object) -> float | None:
    """A number as it is; None for anything else, NaN, infinity, or a whole number that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)
