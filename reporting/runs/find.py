"""Which finished runs a name on the command line means, among all that lie below a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from reporting.runs.run import Found, read
from runner.common.errors import HydromelError, did_you_mean
from runner.common.run_schema import RESULT, RUN

NAMES_SHOWN = 12  # of the sweeps and experiments that are there, when none fits


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
