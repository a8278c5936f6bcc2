"""Damaged files of run folders: every command that reads one says so in a line, and changes nothing else."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from runner.common import run_schema
from runner.experiment.job import run_job
from runner.tracking.run_folder import read_run
from tests.faults import mutate
from tests.faults.forked import Ending, Faults, Tried, Work, call, try_each
from tests.faults.kills import kill_at, named_point
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, hydromel, new_run

# What reads each file of a run's folder. Runs that are cut short are resumed, by the command or as a job of a sweep;
# the others are finished.
READERS = {
    run_schema.RESOLVED: ("resume", "job", "predict", "text", "sync", "compare"),
    run_schema.RUN: ("job", "predict", "sync", "compare"),
    run_schema.METRICS: ("job", "sync", "compare", "compare"),
    run_schema.RESULT: ("sync", "compare", "compare"),
    run_schema.VOCABS: ("job", "predict", "text"),
    f"{run_schema.CHECKPOINTS}/best.safetensors": ("job", "predict", "text", "text"),
    f"{run_schema.CHECKPOINTS}/last.safetensors": ("job",),
    run_schema.OUTCOMES: ("compare",),
    "delivered.json": ("sync",),
}
CANARY = "canary.txt"
_QUICKER = {"baselines": False, "run_plots": None}


@dataclass(frozen=True)
class Sound:
    """A run that is to be damaged: finished, and cut short within training."""

    name: str
    data: str
    finished: Path
    cut: Path
    answers: dict[str, str]  # of each command that answers by the weights alone, as the sound run gives them


def files(count: int, seed: int, folder: Path) -> Part:
    """Damage a file of a run, `count` times, and let a command read it."""
    part = Part("damaged files")
    runs = [_sound(number, folder) for number in (0, 1, 3)]
    cases = [partial(_case, runs[number % len(runs)], seed, number, folder) for number in range(count)]
    for title, faults in try_each(cases):
        part.add(title, faults)
    return part


def _case(run: Sound, seed: int, number: int, folder: Path) -> Tried:
    rng = Random(f"{seed} file {number}")
    name = rng.choice([name for name in READERS if (run.finished / name).exists()])
    reader = rng.choice(READERS[name])
    resumed = reader in ("resume", "job")
    damaged, canary = folder / "damaged", folder / CANARY
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(run.cut if resumed else run.finished, damaged)
    if not (damaged / name).exists():  # not before the run has ended
        (damaged / name).write_bytes((run.finished / name).read_bytes())
    canary.write_text("untouched")
    how = mutate.file(damaged / name, rng)
    before = _contents(damaged, name, resumed)

    def check(ending: Ending) -> Faults:
        faults: Faults = [] if canary.read_text() == "untouched" else [("harm", "another file was written")]
        if ending.code == 0 and name.endswith("best.safetensors") and reader in ("predict", "text"):
            answer = _answer(damaged)
            faults += [("wrong answers", f"{reader}: {answer[:60]!r}")] if answer != run.answers[reader] else []
        if ending.code == 1 or not resumed:
            after = _contents(damaged, name, resumed)
            changed = sorted(key for key, content in before.items() if after.get(key) != content)
            faults += [("harm", f"{', '.join(changed)} changed")] if changed else []
        return faults

    return Tried(f"{number} {run.name}, {reader} of {name}, {how}", _reading(run, reader, damaged), check)


def _contents(folder: Path, damaged: str, resumed: bool) -> dict[str, bytes]:
    """Return the files that no failing command may change, except the damaged one."""
    written = {run_schema.RUN, "delivered.json"} | ({run_schema.RESOLVED} if resumed else set())
    kept = READERS.keys() - written - {damaged}
    return {name: (folder / name).read_bytes() for name in kept if (folder / name).is_file()}


def _sound(number: int, folder: Path) -> Sound:
    """Make a finished run and one that was killed in its second epoch, or reuse its tracker's records."""
    scenario = SCENARIOS[number]
    finished, cut = folder / f"finished-{scenario.name}", folder / f"cut-{scenario.name}"
    folder.mkdir(exist_ok=True)
    ending = call(new_run(scenario, finished, **_QUICKER))
    assert ending.code == 0, ending.output

    def until_killed() -> object:
        kill_at(named_point("before test"), 1)
        return new_run(scenario, cut, **_QUICKER)()

    call(until_killed)
    assert read_run(cut)["status"] == run_schema.RUNNING
    run = Sound(scenario.name, scenario.data, finished, cut, {})
    for reader in ("predict", "text"):
        copy = folder / "copy"
        shutil.copytree(finished, copy)
        ending = call(_reading(run, reader, copy))
        if reader == "predict" or scenario.data == "lm":  # only language models have texts
            assert ending.code == 0, f"{scenario.name}, {reader}, code {ending.code}: {ending.output}"
            run.answers[reader] = _answer(copy)
        shutil.rmtree(copy)
    return run


def _answer(folder: Path) -> str:
    path = folder.with_name("answer")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _reading(run: Sound, reader: str, folder: Path) -> Work:
    """Return the work of a command that reads the run in `folder`; its answer goes beside the folder."""
    root, answer = folder.parent.parent, folder.with_name("answer")
    answer.unlink(missing_ok=True)
    text = ["--input", str(root / f"{run.data}.txt"), "--output", str(answer)]
    if reader == "resume":
        return hydromel("train", f"resume={folder}")
    if reader == "job":
        return lambda: run_job(folder, time.time())
    if reader == "sync":
        return hydromel("sync", str(folder))
    if reader == "compare":
        out = folder.with_name("report")
        return _without_drawing(
            hydromel("compare", str(folder), "--no-mlflow", "--out", str(out), "--csv", f"{out}.csv")
        )
    if reader == "predict" and run.data != "lm":
        return hydromel("predict", f"run={folder}", "--format", "lines", *text)
    if run.data == "lm" and reader == "predict":
        return hydromel("evaluate", f"run={folder}", *text)
    if run.data == "lm":
        return hydromel("generate", f"run={folder}", "prompt=the cat", "--max-tokens", "5", "--samples", "1")
    return hydromel("inspect", f"run={folder}", "--input", text[1])


def _without_drawing(work: Work) -> Work:
    """Return work that draws no plots, which takes longer than all the rest and reads no file."""

    def drawn_not() -> object:
        from reporting.views import files as written

        written.plots = lambda *arguments: []  # type: ignore[assignment]
        return work()

    return drawn_not
