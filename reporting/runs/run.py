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

# keys of result.json that a comparison needs; any other may be missing, and is then shown as a dash
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
TITLE = ("task", "dataset", "embedding", "encoder")  # choices that make the title of a group


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on valid, after `seconds` of training (evaluation and tracking not counted)."""

    step: int
    seconds: float
    quality: float
    tokens: float | None  # real tokens trained on so far; None in old records


@dataclass(frozen=True)
class Run:
    """A finished run. `created` is in Unix seconds."""

    folder: Path
    created: float
    result: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    variant: str = ""  # ` width_multiple=8`: options of batching that differ from those of most runs of its name

    def value(self, path: str) -> Any:
        """Return the value at a dotted path of result.json; None where there is none."""
        return _at(self.result, path)

    def text(self, path: str) -> str:
        """Return the value at a dotted path as text; empty where there is none."""
        value = self.value(path)
        return "" if value is None else str(value)

    def number(self, path: str) -> float | None:
        """Return the finite number at a dotted path; None where there is none, or NaN, or infinity."""
        return finite(self.value(path))

    @property
    def strategy(self) -> str:
        """The name of its batching, with the options that make it a variant."""
        return self.text("batching") + self.variant

    @property
    def title(self) -> str:
        """Task, dataset, embedding and encoder: `tag · wnut17 · word · rnn`."""
        return " · ".join(map(self.text, TITLE))

    @property
    def comparison_hash(self) -> str:
        """The hash of its configuration, except for batching, seed and turn."""
        return self.text("provenance.comparison_hash")

    @property
    def seed(self) -> int:
        """The seed of weights and order."""
        return int(self.result["seed"])

    @property
    def turn(self) -> int:
        """The 1-based number among equal runs; 1 in old records, which have no turns."""
        return int(self.result.get("turn", 1))

    @property
    def machine(self) -> tuple[str, ...]:
        """Host, device, processor and threads: times and memory are comparable only where all four agree."""
        return tuple(self.text(f"provenance.{key}") for key in MACHINE)

    @property
    def metric(self) -> str:
        """The name of the metric that measures its quality."""
        return self.text("quality.metric")

    @property
    def split(self) -> str:
        """The split that its quality is measured on: test, or valid where the data has no test."""
        return "test" if isinstance(self.value("metrics.test"), Mapping) else "valid"

    @property
    def updates(self) -> tuple[int, str]:
        """The count and digest of its updates: runs with equal pairs saw the same rows in every update."""
        return int(self.value("updates.count")), self.text("updates.digest")


@dataclass(frozen=True)
class Found:
    """The folder of a run: finished (`run` is set), damaged (`problem` is set), or neither (see `status`)."""

    folder: Path
    sweep_id: str | None
    experiment: str | None
    status: str
    run: Run | None = None
    problem: str | None = None


def read(folder: Path) -> Found:
    """Read the run in `folder`, finished or not. Damaged records do not raise, but are reported in `problem`."""
    try:
        header = _read_object(folder / RUN) if (folder / RUN).exists() else {}
    except HydromelError as error:
        return Found(folder, None, None, "damaged", problem=str(error))
    sweep_id, experiment = _text(header, "sweep_id"), _text(header, "experiment")
    path = folder / RESULT
    if not path.exists():
        return Found(folder, sweep_id, experiment, _text(header, "status") or "unknown")
    try:
        result = _read_object(path)
        _check(result, path)
        evaluations = _read_evaluations(folder / METRICS, f"valid/{result['quality']['metric']}")
    except HydromelError as error:
        return Found(folder, sweep_id, experiment, "damaged", problem=str(error))
    created = finite(header.get("created"))
    run = Run(folder, path.stat().st_mtime if created is None else created, result, evaluations)
    names = _text(result, "sweep_id") or sweep_id, _text(result, "experiment") or experiment
    return Found(folder, *names, "finished", run)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HydromelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise HydromelError(f"{path} is damaged: it holds a {type(record).__name__}, not a JSON object")
    return record


def _check(result: Mapping[str, Any], path: Path) -> None:
    for key, kind in REQUIRED.items():
        value = _at(result, key)
        if type(value) is not kind:
            raise HydromelError(f"{path} is damaged: {key}={value!r}, but it must be of type {kind.__name__}")
    if type(turn := result.get("turn", 1)) is not int:
        raise HydromelError(f"{path} is damaged: turn={turn!r}, but it must be of type int")


def _read_evaluations(path: Path, key: str) -> tuple[Evaluation, ...]:
    """Return the evaluations in metrics.jsonl; a run without the file has none.

    Raises HydromelError for a line that is not a record.
    """
    evaluations: list[Evaluation] = []
    if not path.exists():
        return ()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if f'"{key}"' not in line:  # parsing all other lines would take most of the time
            continue
        try:
            record = json.loads(line)
            step, seconds, quality = int(record["step"]), record["metrics"]["train/seconds"], record["metrics"][key]
        except (ValueError, KeyError, TypeError) as error:
            raise HydromelError(f"{path}:{number} is damaged: it lacks step, train/seconds or {key}") from error
        # A resumed run repeats the steps since its checkpoint and appends them again: the later records count.
        while evaluations and evaluations[-1].step >= step:
            evaluations.pop()
        if (elapsed := finite(seconds)) is not None and (value := finite(quality)) is not None:  # null: not finite
            evaluations.append(Evaluation(step, elapsed, value, finite(record["metrics"].get("train/tokens"))))
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
    """Return a number as a float; None for anything else, NaN, infinity, or an integer too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)
