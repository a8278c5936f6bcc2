"""Nonsense in configs: a line says what is wrong, or the run ends with figures that are numbers."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.compose import explain, names_of, resolve
from runner.config.schema import NOTES
from runner.experiment.job import run_job
from runner.terminal.command_line import failed
from tests.faults import mutate
from tests.faults.forked import Faults, Tried, Work, try_each
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, Scenario, hydromel
from tests.helpers.composed import run_config

_TINY = ("train.max_updates=2", "train.epochs=1", "train.eval_batch_size=64", "run_plots=null", "predictions=false")
_SECONDS = 30.0
_ON_COMMAND_LINE = 10  # one case in so many is given to the command, whose composing takes most of the time
_GROUPS = (
    "features",
    "embedding",
    "encoder",
    "batching",
    "optimizer",
    "schedule",
    "tracker",
    "dataset",
    "task",
    "metric",
)
_NOT_HERE = ("resume", "runs_dir", *NOTES, "search", "repeat", "plugins")  # what names other work


def configs(count: int, seed: int, folder: Path) -> Part:
    """Change a value or more of a config, `count` times, and run it."""
    part = Part("damaged configs")
    folder.mkdir()
    bases = [_options(scenario, folder) for scenario in SCENARIOS]
    plain = [run_config(*options).resolved for options in bases]
    for title, faults in try_each(
        [partial(_case, plain, bases, f"{seed} config {n}", folder / f"{n}") for n in range(count)], _SECONDS
    ):
        part.add(title, faults)
    return part


def _case(plain: list[dict[str, Any]], bases: list[list[str]], draw: str, run: Path) -> Tried:
    rng, number = Random(draw), int(run.name)
    place, shared = number % len(plain), run.with_name("shared.jsonl")
    shutil.rmtree(run, ignore_errors=True)
    if number % _ON_COMMAND_LINE == 0:
        how = _override(plain[place], rng)
        work = hydromel("train", *bases[place], how, f"hydra.run.dir={run}")
    else:
        changed = copy.deepcopy(plain[place])
        how = ", ".join(_changes(changed, rng))
        work = _running(changed, run)
    title = f"{number} {SCENARIOS[place].name}, {ascii(how)[1:-1][:160]}"
    return Tried(title, work, lambda ending: _in_store(run, shared) if ending.code else _nonsense(run))


def _options(scenario: Scenario, folder: Path) -> list[str]:
    return [*scenario.arguments(), *_TINY, f"runs_dir={folder}", f"tracker.path={folder / 'shared.jsonl'}"]


def _changes(plain: dict[str, Any], rng: Random) -> list[str]:
    """Change a few options in place, and return which."""
    changes = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        key = rng.choice([key for key in plain if key not in _NOT_HERE])
        section = {key: plain[key]}
        before = copy.deepcopy(section)
        changes.append(f"{mutate.structure(section, rng)} = {_changed(before, section)}")
        plain.pop(key)
        plain |= section
    train = plain.get("train")
    if isinstance(train, dict) and train.get("epochs") != 1:
        train["max_updates"] = 2  # one limit is kept
    return changes


def _changed(before: Any, after: Any) -> str:
    """Return the first value that differs, shortened."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in after:
            if key not in before:
                return f"{str(key)[:40]}: {repr(after[key])[:60]}"
            if (result := _changed(before[key], after[key])) != "the same":
                return result
        return "the same"
    return "the same" if repr(before) == repr(after) else repr(after)[:60]


def _override(plain: dict[str, Any], rng: Random) -> str:
    """Return a change as it is written on a command line."""
    if rng.random() < 0.3:
        group = rng.choice(_GROUPS)
        names = [*names_of(group), "", "null", "../task/tag", "x/y", "[a]", "{}", "???", "x" * 5000]
        return f"{group}={rng.choice(names)}"
    paths = list(mutate.places({key: plain[key] for key in plain if key not in _NOT_HERE}))
    key = ".".join(map(str, rng.choice(paths)))
    value = rng.choice(mutate.NASTY)
    text = value if isinstance(value, str) and rng.random() < 0.5 else json.dumps(value).replace('"', "'")
    text = text.replace("\x00", "\x01").replace("\ud800", "\udcff")  # as the system passes them on
    return rng.choice(["", "", "", "+", "++", "~"]) + f"{key}={text}"


def _running(options: dict[str, Any], folder: Path) -> Work:
    """Return work that runs a config in a new folder, as the command does once it is composed."""

    def work() -> int:
        try:
            composed = {key: value for key, value in options.items() if key not in NOTES}
            config = resolve(OmegaConf.create(composed), options["choices"])
        except (HydromelError, OmegaConfBaseException) as error:
            return failed(str(error) if isinstance(error, HydromelError) else explain(error))
        folder.mkdir()
        return run_job(folder, time.time(), config)

    return work


def _nonsense(folder: Path) -> Faults:
    """Return figures of a finished run that are no numbers."""
    path = folder / run_schema.RESULT
    if not path.exists():  # it ran elsewhere
        return []
    result = json.loads(path.read_text(encoding="utf-8"))
    figures = {f"{split} {key}": value for split, own in result["metrics"].items() for key, value in own.items()}
    bad = [key for key, value in figures.items() if key.endswith(result["quality"]["metric"]) and not _is_number(value)]
    return [("wrong answers", f"finished with {bad[0]} = {figures[bad[0]]}")] if bad else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _in_store(folder: Path, shared: Path) -> Faults:
    """Return a fault if a run that never trained was sent to the store."""
    path = folder / run_schema.RUN
    if not path.exists() or (folder / run_schema.METRICS).exists() or not shared.exists():
        return []
    run_id = json.loads(path.read_text(encoding="utf-8")).get("run_id", "?")
    return [("harm", "a run that never began is in the store")] if run_id in shared.read_text(encoding="utf-8") else []
