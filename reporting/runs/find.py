"""Search for the runs that a name on the command line refers to, among all runs below a folder."""

from __future__ import annotations

import json
from pathlib import Path

from reporting.runs.run import FoundRun, read
from runner.common.errors import HydromelError, did_you_mean
from runner.common.run_names import folders_of_runs, names_of_runs
from runner.terminal.progress import track

NAMES_SHOWN = 12  # sweeps, experiments and runs listed in the error when no name fits


def find(names: list[str], runs: Path) -> list[FoundRun]:
    """Return the runs that `names` refer to, each once; without names, every run below the folder `runs`.

    Raises HydromelError if there is none.
    """
    found_runs = [item for name in names for item in _select(name, runs)] if names else scan(runs)
    if not found_runs:
        raise HydromelError(f"no run below {runs}/; make one with `hydromel`, or name another folder with --runs")
    return unique(found_runs)


def unique(found_runs: list[FoundRun]) -> list[FoundRun]:
    """Return each run once: a copy, such as an MLflow artifact, has the same record and run_id."""
    by_record: dict[object, FoundRun] = {}
    for item in found_runs:
        record = json.dumps(item.run.result, sort_keys=True) if item.run else item.folder.resolve()
        by_record.setdefault(record, item)
    return list(by_record.values())


def scan(root: Path) -> list[FoundRun]:
    """Return every run below `root`, in the order of their paths."""
    folders = list(folders_of_runs(root))
    return [read(folder) for folder in track(folders, "reading runs", len(folders))]


def _select(name: str, runs: Path) -> list[FoundRun]:
    """Return the runs below the folder `name`, or below `runs` the run, the sweep or the experiment of that name."""
    if Path(name).is_dir() and (inside := scan(Path(name))):
        return inside
    # names are in the records, so all runs must be read
    everything = scan(runs)
    folder = (runs / name).resolve()
    selected = [
        item
        for item in everything
        if name in (item.folder.name, *item.labels, item.sweep_id, item.experiment)
        or item.folder.resolve().is_relative_to(folder)
    ]
    if not selected:
        of_several = {label for item in everything for label in (item.sweep_id, item.experiment) if label}
        alone = {item.folder.name for item in everything if not (item.sweep_id or item.experiment)}
        known = [*sorted(of_several), *sorted(alone - of_several)]
        listed = ", ".join(known[:NAMES_SHOWN]) + (", ..." if len(known) > NAMES_SHOWN else "")
        raise HydromelError(
            f"no run fits '{name}': it is neither a folder with runs nor the name or id of a run, sweep or experiment "
            f"below {runs}/{did_you_mean(name, [*known, *names_of_runs(runs)])} Known: {listed or 'no run'}"
        )
    return selected
