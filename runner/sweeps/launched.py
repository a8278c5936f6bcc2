"""Jobs that a launcher of Hydra starts (joblib, submitit), perhaps on another machine and after this command ended.

Each job notes in the folder of its sweep which run it makes. How it ended is read from that run's folder, so it is
known even if the launcher, or the process that waited for it, is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.files import write_json
from runner.common.records import parse
from runner.common.run_schema import FINISHED, RESULT, RUN, RUNNING
from runner.config.schema import RunConfig
from runner.sweeps.jobs import SweepJobs, folder_name
from runner.sweeps.process import reason
from runner.sweeps.slots import cores
from runner.tracking.network_files import warn_of_network
from runner.tracking.run_folder import how_it_ended, is_alive, mark_dead

log = logging.getLogger(__name__)
COUNT = "HYDROMEL_JOBS"  # environment variable that tells jobs how many the sweep has; 0: unknown
_NOTES = ".jobs"  # in a sweep's folder: a file for each job of the last command
_MOST_CHARACTERS = 300


@with_config({"extra": "forbid"})
class _Note(TypedDict):
    """The record that a job writes to the folder of its sweep when it starts."""

    options: str
    folder: str | None  # the name of its run's folder; None: its config was refused
    error: str | None  # why it was


_NOTE = TypeAdapter(_Note)


def announce(sweep: Path, launcher: str, tracker: object) -> None:
    """Forget the notes of an earlier command, and say where to look while the launcher's jobs run."""
    shutil.rmtree(sweep / _NOTES, ignore_errors=True)
    logging.getLogger("submitit").setLevel(logging.ERROR)  # on a cluster without accounting it warns every few seconds
    logs = "" if launcher == "joblib" else f", and {sweep}/.submitit the launcher's own logs"
    log.info("hydra/launcher=%s starts the jobs; %s/JOB/console.log has what each says%s", launcher, sweep, logs)
    if launcher == "submitit_slurm" and OmegaConf.is_dict(tracker):
        assert isinstance(tracker, DictConfig)
        warn_of_network(str(tracker.get("uri", "")))


def run_launched(jobs: SweepJobs, asked: RunConfig, number: int, options: str, launcher: DictConfig) -> None:
    """Run a job in the process that a launcher has started for it.

    Args:
        number: place of the job in its sweep, from 0.
        launcher: the launcher's options.
    """
    assert jobs.sweep is not None
    if asked.sweep.jobs != 1:
        error = f"sweep.jobs={asked.sweep.jobs} is for hydra/launcher=basic; a launcher has options of its own"
        refuse(jobs.sweep, number, options, error)
        return
    config = asked.changed(sweep={"id": asked.sweep.id, "jobs": _at_a_time(launcher)})
    jobs.is_launched, jobs.number = True, number
    _write(jobs.sweep, number, {"options": options, "folder": folder_name(config), "error": None})
    jobs.add(config, options)


def _at_a_time(launcher: DictConfig) -> int:
    """Return the number of jobs that a launcher runs at a time on this machine, as far as its options say."""
    count = os.environ.get(COUNT, "")
    if "LocalLauncher" in launcher["_target_"]:  # of submitit: all at once
        return int(count) if count.isdecimal() and int(count) else 2
    jobs = int(launcher.get("n_jobs") or 1)  # of joblib: -1 are all cores, -2 all but one
    return max(1, jobs if jobs > 0 else cores() + 1 + jobs)


def refuse(sweep: Path, number: int, options: str, error: str) -> None:
    """Note that a job's config was refused."""
    _write(sweep, number, {"options": options, "folder": None, "error": error})


def collect(jobs: SweepJobs) -> None:
    """Record how the jobs of a launcher have ended, from their folders."""
    assert jobs.sweep is not None
    files = {int(file.stem): file for file in (jobs.sweep / _NOTES).glob("*.json") if file.stem.isdecimal()}
    for number in range(jobs.count or max(files, default=-1) + 1):
        if number not in files:
            jobs.note_failure(f"job {number + 1}", "it has not started, or could not write to the sweep's folder")
            continue
        try:
            note = parse(_NOTE, read_bytes(files[number]), str(files[number]))
            name = note["folder"]
            error = note["error"] if name is None else _why_not_finished(jobs.sweep / Path(name).name)
        except HydromelError as damaged:
            name, error = f"job {number + 1}", str(damaged)
        if error is None and name is not None:
            jobs.finished.append(name)
        else:
            jobs.note_failure(name or note["options"], error or "its config was refused")


def first_line(error: BaseException) -> str:
    """Return an error of a launcher in a line, without the traceback of the job and the logs that it may hold."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_MOST_CHARACTERS]}" if lines else type(error).__name__


def _why_not_finished(folder: Path) -> str | None:
    if (folder / RESULT).exists():
        return None
    if folder.exists() and is_alive(folder):
        return "it still runs"
    if not (folder / RUN).exists():
        return reason(folder, 1)
    run = mark_dead(folder)
    if run["status"] == FINISHED:
        return None
    if run["status"] == RUNNING:
        return f"it runs on {run.get('host', 'another machine')}, or its process died"
    return how_it_ended(run)


def _write(sweep: Path, number: int, note: _Note) -> None:
    with contextlib.suppress(HydromelError):  # the folder cannot be written: the job itself says so
        write_json(sweep / _NOTES / f"{number}.json", note)
