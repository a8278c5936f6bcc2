"""Find the run that a user names: by its folder, or by its name or id below the folder of all runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError, shortened
from runner.common.records import RunRecord, parse_run
from runner.common.run_schema import RESOLVED, RESULT, RUN

_PREFIX = "run="
_SHOWN = 5  # runs in a message


def run_name(argument: str) -> str:
    """Return the name in an argument of the command line, which may also be written as `run=NAME`; `~` is the home."""
    return os.path.expanduser(argument.removeprefix(_PREFIX))


def find_run(name: str, runs: Path) -> Path | None:
    """Return the folder of a run, or None if there is none of this name.

    Args:
        name: a folder, a folder below `runs`, or the name or id in the `run.json` of a run below `runs`.
        runs: the folder of all runs.

    An existing path that is not a run is returned as it is: the caller's reader says what it lacks.

    Raises:
        HydromelError: the name fits several runs, or it names a folder of several runs.
    """
    path = Path(name).expanduser()
    for folder in (path, runs / path):
        if is_run(folder):
            return folder
        if inside := list(folders_of_runs(folder)):
            raise HydromelError(f"{folder} holds {_several(inside)}")
    fitting = [folder for folder in folders_of_runs(runs) if folder.name == name or name in labels(header(folder))]
    if len(fitting) > 1:
        raise HydromelError(f"{shortened(name)} is the name of {_several(fitting)}")
    return fitting[0] if fitting else path if path.exists() else None


def names_of_runs(runs: Path) -> set[str]:
    """Return what the runs below `runs` can be called: the names of their folders, and their paths from there."""
    folders = [folder.relative_to(runs) for folder in folders_of_runs(runs) if folder != runs]
    return {str(folder) for folder in folders} | {folder.name for folder in folders}


def is_run(folder: Path) -> bool:
    """Return True for the folder of a run, also one of which only the model is left."""
    return any((folder / file).is_file() for file in (RUN, RESULT, RESOLVED))


def folders_of_runs(root: Path) -> Iterator[Path]:
    """Yield the folders of the runs at or below `root`, in the order of their paths, without those inside a run."""
    for folder, subfolders, files in os.walk(root):
        if RUN in files or RESULT in files:
            subfolders.clear()
            yield Path(folder)
        subfolders.sort()


def header(folder: Path) -> RunRecord | None:
    """Return the content of a run's `run.json`; None if it is missing or damaged."""
    try:
        return parse_run(read_bytes(folder / RUN), str(folder / RUN)) if (folder / RUN).is_file() else None
    except HydromelError:
        return None


def labels(run: RunRecord | None) -> tuple[str, ...]:
    """Return the name and the id of a run."""
    return () if run is None else (run.get("name", ""), run["run_id"])


def _several(folders: list[Path]) -> str:
    shown = ", ".join(map(str, folders[:_SHOWN])) + (", ..." if len(folders) > _SHOWN else "")
    return f"{len(folders)} run{'s' * (len(folders) > 1)}; give the folder of one: {shown}"
