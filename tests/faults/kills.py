"""Killed runs: each is resumed and must end as the run that nobody killed, to the bit.

A run counts how often it passes each point; a case kills a run at one of these passages, which its seed draws.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from tests.faults.forked import Faults, Work, call, in_turn
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, Scenario, hydromel, new_run

FIRST_PHASES = 12  # kills that a small campaign makes: one in each phase


@dataclass(frozen=True)
class Point:
    """A place in a run.

    Attributes:
        where: path of the function whose call is the place.
        after: True: once the function has returned.
        torn: the function writes a file of this name, or to any if it is empty, of which a half is left; None: it does
            not.
    """

    phase: str
    where: str
    after: bool = False
    torn: str | None = None


POINTS = (
    Point("before data", "runner.experiment.preparation.load_data"),
    Point("in training", "runner.training.loop.backward"),
    Point("between segments", "runner.tracking.run_folder.RunFolder.flush"),
    Point("records written", "runner.tracking.run_folder.RunFolder.flush", after=True),
    Point("checkpoint half written", "os.fsync", torn=".safetensors"),
    Point("checkpoint not renamed", "os.replace"),
    Point("in evaluation", "runner.components.measures.Measures.of_split"),
    Point("before test", "runner.experiment.run.finish"),
    Point("predictions", "runner.experiment.result.inspect", after=True),
    Point("baselines", "runner.experiment.result._baselines"),
    Point("before the result", "runner.tracking.run_folder.RunFolder.write_result"),
    Point("after the result", "runner.tracking.run_folder.RunFolder.write_result", after=True),
    Point("plots", "reporting.plots.run.RunPlots.draw"),
    Point("before delivery", "runner.tracking.tracker.JsonlTracker.deliver"),
    Point("delivered", "runner.tracking.tracker.JsonlTracker.deliver", after=True),
    Point("status", "runner.tracking.run_folder.RunFolder.set_status"),
    Point("any file half written", "os.fsync", torn=""),
    Point("any file not renamed", "os.replace"),
)


def _locate(where: str) -> tuple[Any, str]:
    """Return the module or class that has a function, and the function's name there."""
    head, _, name = where.rpartition(".")
    try:
        return importlib.import_module(head), name
    except ModuleNotFoundError:
        module, _, owner = head.rpartition(".")
        return getattr(importlib.import_module(module), owner), name


def wrap(where: str, passage: Callable[[Callable[..., Any], Any, Any], Any]) -> None:
    """Replace a function by one that calls `passage(function, arguments, named arguments)`."""
    owner, name = _locate(where)
    real = getattr(owner, name)

    @functools.wraps(real)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return passage(real, arguments, named)

    setattr(owner, name, wrapped)


def _applies(point: Point, arguments: tuple[Any, ...]) -> bool:
    return point.torn is None or point.torn in os.readlink(f"/proc/self/fd/{arguments[0]}")


def _tear(file: int) -> None:
    """Leave a half of what was written to a file: of all of it, or of the last line that was appended."""
    size = os.fstat(file).st_size
    appended = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND
    os.ftruncate(file, max(0, size - 5) if appended else size // 2)


def count_passages(passed: Counter[str]) -> None:
    """Count from now on how often each point is passed."""
    for point in POINTS:

        def passage(real: Any, arguments: Any, named: Any, point: Point = point) -> Any:
            passed[point.phase] += _applies(point, arguments)
            return real(*arguments, **named)

        wrap(point.where, passage)


def kill_at(point: Point, number: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Send this process a signal at the `number`-th passage of a point, counted from 1."""
    passed = Counter[str]()

    def passage(real: Any, arguments: Any, named: Any) -> Any:
        passed[point.phase] += _applies(point, arguments)
        due = passed[point.phase] == number and _applies(point, arguments)
        if due and point.torn is not None:
            _tear(arguments[0])
        result = real(*arguments, **named) if point.after else None
        if due:
            passed[point.phase] += 1  # once
            os.kill(os.getpid(), by)
        return result if point.after else real(*arguments, **named)

    wrap(point.where, passage)


@dataclass(frozen=True)
class Reference:
    """The run of a scenario that nobody killed, and how often it passes each point."""

    scenario: Scenario
    folder: Path
    passages: dict[str, int]


@functools.cache
def reference(scenario: Scenario) -> Reference:
    """Return the run of a scenario, which is made once, below the working directory."""
    folder = Path("references", scenario.name).absolute()
    counts = folder / "passages.json"
    folder.mkdir()

    def work() -> object:
        passed = Counter[str]()
        count_passages(passed)
        try:
            return new_run(scenario, folder / "run")()
        finally:
            counts.write_text(json.dumps(passed))

    ending = call(work)
    assert ending.code == 0, f"{scenario.name}, code {ending.code}: {ending.output}"
    return Reference(scenario, folder / "run", json.loads(counts.read_text()))


def kills(count: int, seed: int, folder: Path) -> Part:
    """Kill and resume `count` runs."""
    part = Part("killed runs")
    references = [reference(scenario) for scenario in SCENARIOS]
    for number, (whole, point) in zip(range(count), _cases(references, seed), strict=False):
        rng = Random(f"{seed} kill {number}")
        passage = 1 + rng.randrange(whole.passages[point.phase])
        gently = number >= FIRST_PHASES and point.torn is None and rng.random() < 0.2
        by = signal.SIGTERM if gently else signal.SIGKILL
        title = f"{number} {whole.scenario.name}, {by.name} at {point.phase} {passage}"
        faults = _killed(whole, point, passage, by, folder / f"kill-{number}", rng if number >= FIRST_PHASES else None)
        part.add(title, faults)
        part.counts["bit-identical"] += not any(kind in ("differs", "lost points") for kind, _ in faults)
    return part


def _cases(references: list[Reference], seed: int) -> Iterator[tuple[Reference, Point]]:
    """Yield (reference, point): first every point once, of a run that passes it."""
    rng = Random(f"{seed} kills")
    place = rng.randrange(len(references))
    while True:
        for point in POINTS:
            passing = [item for item in references if item.passages.get(point.phase)]
            place += 1
            yield passing[place % len(passing)], point


def _killed(
    whole: Reference, point: Point, passage: int, by: signal.Signals, folder: Path, again: Random | None
) -> Faults:
    """Kill a run and resume it, which is killed too if `again` draws so; return what is wrong in the end."""
    folder.mkdir(parents=True)
    cut = folder / "run"

    def first() -> object:
        kill_at(point, passage, by)
        return new_run(whole.scenario, cut)()

    ending = call(first)
    if ending.code != -signal.SIGKILL:
        if by == signal.SIGKILL:
            return [("differs", f"it was not killed: {ending.last_line}")]
        if ending.fault:
            return [(ending.fault, ending.last_line)]
    faults: Faults = []
    if again is not None and again.random() < 0.4:
        other, number = again.choice(POINTS), 1 + again.randrange(3)

        def second() -> object:
            kill_at(other, number)
            return hydromel("train", f"resume={cut}")()

        ending = call(second)
        if ending.code != -signal.SIGKILL and ending.fault:
            faults.append((ending.fault, f"resumed: {ending.last_line}"))
    return faults + finish(cut, new_run(whole.scenario, cut)) + differences(whole.folder, cut)


def finish(cut: Path, again: Work) -> Faults:
    """Finish a run, if it is not finished, and deliver its records; one that never began is made `again`."""
    faults: Faults = []
    ended, begun = ((cut / name).exists() for name in (run_schema.RESULT, run_schema.RUN))
    ending = call(hydromel("train", f"resume={cut}") if begun else again)
    if ending.fault:
        faults.append((ending.fault, f"resume: {ending.last_line}"))
    elif ending.code and not ended:
        faults.append(("differs", f"cannot be resumed: {ending.last_line}"))
    ending = call(in_turn([hydromel("sync", str(cut)), hydromel("sync", str(cut))]))
    if ending.fault or ending.code:
        faults.append((ending.fault or "lost points", f"sync: {ending.last_line}"))
    return faults


def differences(whole: Path, cut: Path, sent: bool = True) -> Faults:
    """Return how a resumed run differs from the whole one; `sent`: also in what its tracker was sent."""
    faults: Faults = []
    if not (cut / run_schema.RESULT).exists():
        return [("differs", "no result")]
    for name in ("best", "last"):
        first, second = (load_file(item / run_schema.CHECKPOINTS / f"{name}.safetensors") for item in (whole, cut))
        different = first.keys() ^ second.keys() | {key for key in first if not _equal(first[key], second.get(key))}
        faults += [("differs", f"{name}: {', '.join(sorted(different)[:3])}")] if different else []
    results = [json.loads((item / run_schema.RESULT).read_text()) for item in (whole, cut)]
    for key in ("metrics", "majority", "baselines", "tokens", "padding", "updates", "vocab", "model", "quality"):
        first, second = (_timeless(result.get(key)) for result in results)
        if first != second:
            faults.append(("differs", f"result.json: {key}"))
    faults += _records(records_of(whole), records_of(cut), "metrics.jsonl")
    if sent:
        faults += _records(*(_sent(item) for item in (whole, cut)), "delivered")
    here, there = (_files(item) for item in (whole, cut))
    faults += [("leftovers", name) for name in sorted(there.keys() - here.keys())]
    faults += [("lost points", f"no {name}") for name in sorted(here.keys() - there.keys())]
    for name in here.keys() & there.keys():
        if name.startswith("predictions/") or name == run_schema.VOCABS:
            faults += [("differs", name)] if here[name].read_bytes() != there[name].read_bytes() else []
        if name.endswith(".npz"):
            arrays = [dict(np.load(item)) for item in (here[name], there[name])]
            same = all(np.array_equal(arrays[0][key], arrays[1].get(key)) for key in arrays[0])
            faults += [] if same else [("differs", name)]
    return faults


def _equal(first: torch.Tensor, second: torch.Tensor | None) -> bool:
    return second is not None and first.dtype == second.dtype and torch.equal(first, second)


def _timeless(value: Any) -> Any:
    """Return the value without seconds, which no two runs share."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if "seconds" not in key}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def records_of(folder: Path) -> Counter[str]:
    """Return the points in `metrics.jsonl`; of what depends on the clock, without the value."""
    return points_of(json.loads(line) for line in (folder / run_schema.METRICS).read_text().splitlines())


def points_of(lines: Iterator[dict[str, Any]]) -> Counter[str]:
    result = Counter[str]()
    for line in lines:
        for name, value in line["metrics"].items():
            result[f"{name} {line['step']} {line['epoch']} {'' if 'seconds' in name else value}"] += 1
    return result


def _sent(run: Path) -> Counter[str]:
    """Return the points of a run that the file beside it was sent, the statuses that end it, and other runs there.

    A try that failed before its first checkpoint is a run of its own, kept within the folder.
    """
    shared = run.with_name("shared.jsonl")
    lines = [json.loads(line) for line in shared.read_text().splitlines()] if shared.exists() else []
    run_id = json.loads((run / run_schema.RUN).read_text())["run_id"]
    earlier = {path.name for path in (run / run_schema.EARLIER).glob("*")}
    own = [line for line in lines if line["run_id"] == run_id]
    result = points_of(line for line in own if "metrics" in line)
    result["finished"] = sum(line.get("status") == run_schema.FINISHED for line in own)
    return result + Counter(
        {f"run {line['run_id']}" for line in lines} - {f"run {item}" for item in {run_id, *earlier}}
    )


def _records(whole: Counter[str], cut: Counter[str], where: str) -> Faults:
    lost, doubled = sorted(whole.keys() - cut.keys()), sorted(key for key, n in cut.items() if n > 1)
    more = sorted(cut.keys() - whole.keys())
    faults = [("lost points", f"{where}: {len(lost)}, {lost[0]}")] if lost else []
    faults += [("doubled points", f"{where}: {len(doubled)}, {doubled[0]}")] if doubled else []
    return faults + ([("differs", f"{where}: {len(more)} more, {more[0]}")] if more else [])


def _files(folder: Path) -> dict[str, Path]:
    result = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: path for n, path in result.items() if not n.endswith(".lock") and not n.startswith(run_schema.EARLIER)}


def named_point(phase: str) -> Point:
    return next(point for point in POINTS if point.phase == phase)
