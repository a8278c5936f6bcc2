"""A finished run, read from the records in its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reporting.statistics.intervals import Slot
from runner.common.bounded import MOST_METRICS_BYTES, read_bytes
from runner.common.errors import HydromelError
from runner.common.records import ResultRecord, finite, parse_metrics_line, parse_result, parse_run
from runner.common.run_names import header, labels
from runner.common.run_schema import METRICS, RESULT, RUN

MACHINE = ("host", "device", "cpu", "threads")  # keys of provenance
TITLE = ("task", "dataset", "embedding", "encoder")  # choices that make the title of a group


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on valid, after `seconds` of training (evaluation and tracking not counted)."""

    step: int
    seconds: float
    quality: float  # NaN where it is undefined, such as the correlation of equal predictions
    tokens: float | None  # real tokens trained on so far; None in old records


@dataclass(frozen=True)
class Run:
    """A finished run. `created` is in Unix seconds."""

    folder: Path
    created: float
    result: ResultRecord
    evaluations: tuple[Evaluation, ...]
    variant: str = ""  # ` width_multiple=8`: options of batching that differ from those of most runs of its name

    def section(self, path: str) -> Mapping[str, object]:
        """Return the section at a dotted path of result.json; an empty one if there is none."""
        value = _at(self.result, path)
        return value if isinstance(value, Mapping) else {}

    def text(self, path: str) -> str:
        """Return the value at a dotted path as text; empty if there is none."""
        value = _at(self.result, path)
        return "" if value is None else str(value)

    def number(self, path: str) -> float | None:
        """Return the finite number at a dotted path; None if it is missing, NaN or infinite."""
        return finite(_at(self.result, path))

    @property
    def strategy(self) -> str:
        """The name of its batching, with the options that make it a variant, and its ranks if there are several."""
        if self.ranks == 1:
            return self.on_one_rank
        shard = self.result["provenance"].get("shard", "none")
        return f"{self.on_one_rank} ranks={self.ranks}" + (f" shard={shard}" if shard != "none" else "")

    @property
    def on_one_rank(self) -> str:
        """The strategy of a run of one rank that makes the same updates."""
        return self.result["batching"] + self.variant

    @property
    def ranks(self) -> int:
        """The number of processes that trained together."""
        return self.result["provenance"].get("ranks", 1)

    @property
    def title(self) -> str:
        """Task, dataset, embedding and encoder: `tag · wnut17 · word · rnn`."""
        return " · ".join(map(self.text, TITLE))

    @property
    def comparison_hash(self) -> str:
        """The hash of its configuration, except for batching, seed and turn."""
        return self.result["provenance"]["comparison_hash"]

    @property
    def seed(self) -> int:
        """The seed of weights and order."""
        return self.result["seed"]

    @property
    def turn(self) -> int:
        """The 1-based number among equal runs; 1 in old records, which have no turns."""
        return self.result.get("turn", 1)

    @property
    def machine(self) -> tuple[str, ...]:
        """Host, device, processor and threads: times and memory are comparable only where all four agree."""
        return tuple(self.text(f"provenance.{key}") for key in MACHINE)

    @property
    def slot(self) -> Slot:
        """Seed, turn and machine: speeds of two strategies are compared between runs in which they agree."""
        return self.seed, self.turn, self.machine

    @property
    def metric(self) -> str:
        """The name of the metric that measures its quality."""
        return self.result["quality"]["metric"]

    @property
    def unit(self) -> str:
        """The unit of that metric; empty for a plain number."""
        quality = self.result["quality"]
        # Earlier versions recorded no unit: they had percentages, and plain numbers of which less is better.
        return quality.get("unit", "%" if quality["higher_is_better"] else "")

    @property
    def split(self) -> str:
        """The split that its quality is measured on: test, or valid where the data has no test."""
        return "test" if "test" in self.result.get("metrics", {}) else "valid"

    @property
    def updates(self) -> tuple[int, str]:
        """The count and digest of its updates: runs with equal pairs saw the same rows in every update."""
        return self.result["updates"]["count"], self.result["updates"]["digest"]


@dataclass(frozen=True)
class FoundRun:
    """The folder of a run: finished (`run` is set), damaged (`problem` is set), or neither (see `status`)."""

    folder: Path
    sweep_id: str | None
    experiment: str | None
    status: str
    labels: tuple[str, ...] = ()  # the run's name and id
    run: Run | None = None
    problem: str | None = None


def read(folder: Path) -> FoundRun:
    """Read the run in `folder`, finished or not. Damaged records do not raise, but are reported in `problem`."""
    names: tuple[str | None, str | None] = (None, None)
    path = folder / RESULT
    try:
        run = parse_run(read_bytes(folder / RUN), str(folder / RUN)) if (folder / RUN).exists() else None
        if run:
            names = run.get("sweep_id"), run.get("experiment")
        if not path.exists():
            return FoundRun(folder, *names, run["status"] if run else "unknown", labels(run))
        result = parse_result(read_bytes(path), str(path))
        evaluations = _read_evaluations(folder / METRICS, f"valid/{result['quality']['metric']}")
    except HydromelError as error:
        return FoundRun(folder, *names, "damaged", labels(header(folder)), problem=str(error))
    created = run["created"] if run else path.stat().st_mtime
    names = result.get("sweep_id") or names[0], result.get("experiment") or names[1]
    return FoundRun(folder, *names, "finished", labels(run), Run(folder, created, result, evaluations))


def _read_evaluations(path: Path, key: str) -> tuple[Evaluation, ...]:
    """Return the evaluations in metrics.jsonl; a run without the file has none.

    Raises HydromelError for a line that is not a record.
    """
    evaluations: list[Evaluation] = []
    if not path.exists():
        return ()
    for number, line in enumerate(read_bytes(path, MOST_METRICS_BYTES).splitlines(), start=1):
        if f'"{key}"'.encode() not in line:  # parsing all other lines would take most of the time
            continue
        where = f"{path}:{number}"
        record = parse_metrics_line(line, where)
        step, metrics = record["step"], record["metrics"]
        if not {key, "train/seconds"} <= metrics.keys():
            raise HydromelError(f"{where} is damaged: it lacks train/seconds or {key}")
        # A resumed run repeats the steps since its checkpoint and appends them again: the later records count.
        while evaluations and evaluations[-1].step >= step:
            evaluations.pop()
        seconds, quality = metrics["train/seconds"], metrics[key]
        if seconds is not None:  # null: not finite
            value = math.nan if quality is None else quality
            evaluations.append(Evaluation(step, seconds, value, metrics.get("train/tokens")))
    return tuple(evaluations)


def _at(record: object, path: str) -> object:
    for key in path.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
