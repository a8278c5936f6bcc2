"""One trial: a run in a separate process, whose evaluations are read from its records while it trains."""

from __future__ import annotations

import math
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import write_json
from runner.sweeps.process import INTERRUPTED, end, end_with_us, reason, start_job
from runner.sweeps.slots import WHOLE, Slot
from runner.tracking.run_folder import read_metrics, read_result, read_run
from runner.tracking.tracker import Tracker, deliver_or_warn

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ended:
    """The end of a trial: a `value` of its metric, a stop by the pruner at an evaluation, or an `error`."""

    value: float | None = None
    pruned_at: int | None = None
    error: str | None = None


def run_trial(
    folder: Path,
    metric: str,
    epochs: int,
    unpromising: Callable[[int, float], bool],
    slot: Slot = WHOLE,
    stopping: threading.Event | None = None,
) -> Ended:
    """Run the config in `folder` until it ends or is `unpromising`.

    Args:
        metric: the validation metric that `unpromising` judges.
        epochs: maximum number of epochs; at the last one the run is not ended.
        unpromising: called with the number of an evaluation, from 1, and its figure; returns True to end the run.
            The first True decides, even if the run continued before it was stopped.
        stopping: for a trial beside others: set by another thread to end the run. If only this run is interrupted,
            that is an error of the trial.

    Raises:
        HydromelError: the task has no such metric.
        KeyboardInterrupt: this process or the run was interrupted; the run has ended.
    """
    with (folder / run_schema.CONSOLE).open("wb") as console, start_job(folder, console, slot=slot) as process:
        try:
            for number, value in enumerate(_evaluations(process, folder, metric, stopping), start=1):
                if value is not None and unpromising(number, value) and number < epochs:
                    end(process)
                    return Ended(pruned_at=number)
        except KeyboardInterrupt:
            end_with_us(process)
            raise
        except BaseException:
            end(process)
            raise
    if process.returncode == INTERRUPTED and stopping is None:
        raise KeyboardInterrupt
    return _outcome(folder, metric, process.returncode)


def mark_pruned(folder: Path, evaluation: int, tracker: Tracker) -> None:
    """Record in the run's tags, and in its tracker, that the pruner stopped it."""
    run = read_run(folder)
    tags = run["tags"] | {run_schema.TAG_PRUNED: f"evaluation {evaluation}"}
    write_json(folder / run_schema.RUN, run | {"tags": tags})
    deliver_or_warn(tracker, folder, final=True)


def _evaluations(
    process: subprocess.Popen[bytes], folder: Path, metric: str, stopping: threading.Event | None
) -> Iterator[float | None]:
    """Yield the metric at each evaluation on valid until the process ends; None: it was not finite.

    Raises KeyboardInterrupt once `stopping` is set.
    """
    end_of_read = 0
    while True:
        over = process.poll() is not None  # checked before reading, since an ended process writes nothing more
        for record, end_of_record in read_metrics(folder, end_of_read):
            end_of_read = end_of_record
            figures = {key.removeprefix("valid/"): value for key, value in record["metrics"].items() if "valid/" in key}
            if figures and metric not in figures:
                names = ", ".join(figures)
                raise HydromelError(f"search.metric={metric}: this task has no such figure; it has {names}")
            if figures:
                yield figures[metric]
        if over:
            return
        if stopping is not None and stopping.is_set():
            raise KeyboardInterrupt
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _outcome(folder: Path, metric: str, code: int) -> Ended:
    """Return the outcome of a run that was not stopped."""
    result = read_result(folder) if code == 0 else None
    if result is None:
        return Ended(error=reason(folder, code))
    value = result.get("metrics", {}).get("valid", {}).get(metric)
    if not isinstance(value, float | int) or not math.isfinite(value):
        return Ended(error=f"its {metric} on valid is {value}")
    return Ended(value=float(value))
