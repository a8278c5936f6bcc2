"""Delivery of records that the trackers of runs do not have yet.

A run notes its folder in `runs_dir` until its records are delivered, so that the end of a later run finds those that
still lack a delivery without reading all others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from runner.common import run_schema
from runner.common.bounded import check_contents, read_yaml
from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError, without_credentials
from runner.common.files import cannot_write, write_text
from runner.common.seal import is_made_here
from runner.config.instantiate import build
from runner.config.saved import locate_classes
from runner.tracking.run_folder import is_alive, mark_dead, read_run
from runner.tracking.several import parts_of
from runner.tracking.tracker import CanRestore, DeliveryError, NoTracker, Tracker, is_delivered

log = logging.getLogger(__name__)
UNDELIVERED = ".undelivered"  # folder in runs_dir; it holds a file per run with the path of the run's folder
State = Literal["delivered", "restored", "up to date", "running", "no tracker", "deleted in the store (see --restore)"]


def sync_run(folder: Path, tracker: Tracker, again: bool = False, restore: bool = False) -> State:
    """Deliver one run, unless it is being written, or the store has it, or the user deleted it there.

    Args:
        again: also deliver a run that is marked as delivered.
        restore: also deliver a run that was deleted in the store.

    Raises:
        HydromelError: the folder is damaged, holds links or cannot be written, or the store could not be reached.
    """
    check_contents(folder)
    try:
        if is_alive(folder):
            return "running"
        mark_dead(folder)
        if isinstance(tracker, NoTracker):
            return "no tracker"
        in_store = tracker.find(folder) if isinstance(tracker, CanRestore) else "active"
        if in_store == "deleted" and not restore:
            return "deleted in the store (see --restore)"
        if isinstance(tracker, CanRestore) and in_store == "deleted":
            tracker.restore(folder)
        elif in_store == "active" and not again and is_delivered(folder, tracker):
            return "up to date"
        tracker.deliver(folder, final=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return "restored" if in_store == "deleted" else "delivered"


def mark_undelivered(root: Path, folder: Path) -> None:
    """Note in `root` that the run in `folder`, a folder below it, is not delivered yet; a failure is a warning."""
    if not folder.resolve().is_relative_to(root.resolve()):
        return
    try:
        write_text(_mark(root, folder), str(folder.absolute()))
    except HydromelError as error:
        log.warning("warning: %s; if the tracker misses records, hydromel-sync delivers them", error)


def unmark(root: Path, folder: Path) -> None:
    """Remove the note of `mark_undelivered`."""
    with contextlib.suppress(OSError):
        _mark(root, folder).unlink()


def _mark(root: Path, folder: Path) -> Path:
    return root / UNDELIVERED / hashlib.blake2b(bytes(folder.absolute()), digest_size=16).hexdigest()


def deliver_pending(root: Path, tracker: Tracker, plugins: Sequence[str] = ()) -> int:
    """Deliver the ended runs noted in `root` that the same targets still lack; return their number.

    A run calls this at its end with its own `tracker`, for earlier runs during which the store was unreachable.

    Raises:
        DeliveryError: the store is unreachable.
    """
    count, trackers = 0, dict[str, Tracker]()
    for mark in sorted((root / UNDELIVERED).glob("[0-9a-f]*")):
        try:
            folder = Path(mark.read_text(encoding="utf-8"))
            if not (folder / run_schema.RUN).exists():
                mark.unlink(missing_ok=True)
                continue
            own = {part.target(folder): part for part in parts_of(tracker).values()}
            wanted = [part.target(folder) for part in parts_of(tracker_of(folder, trackers, plugins)).values()]
            states = [sync_run(folder, own[target]) for target in wanted if target in own]
            count += "delivered" in states
            if len(states) == len(wanted) and "running" not in states:
                mark.unlink(missing_ok=True)
        except DeliveryError:
            raise
        except (HydromelError, OSError, ValueError):
            continue  # a damaged folder does not concern this run; hydromel-sync reports it
    return count


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs at or below `root`, oldest first; a folder that cannot be read is a warning.

    Raises HydromelError if `root` does not exist.
    """
    if not root.is_dir():
        raise HydromelError(f"{root}: no such folder; give the folder of a run, or one with runs below it")

    def tell(error: OSError) -> None:
        log.warning("warning: cannot read %s: %s", error.filename, error.strerror)

    walked = os.walk(root, onerror=tell)
    found = [Path(folder, run_schema.RUN) for folder, _, files in walked if run_schema.RUN in files]
    return [path.parent for path in sorted(found, key=lambda path: path.lstat().st_mtime)]


def tracker_of(folder: Path, trackers: dict[str, Tracker], plugins: Sequence[str] = (), trust: bool = False) -> Tracker:
    """Return the tracker in the run's config; equal configs share one object, which keeps its connection.

    Args:
        trackers: those that were built before, by their options; a new one is added.
        plugins: modules that the user, not the run, allows.
        trust: the user allows the tracker of a run that another installation made.

    Raises:
        HydromelError: another installation made the run, or its config names a class that is neither registered nor in
            a plugin.
    """
    check_contents(folder)
    run = read_run(folder)  # first, so that a folder that is not a run gets an error that says so
    path = folder / run_schema.RESOLVED
    config = read_yaml(path)
    saved = config.get("tracker") if isinstance(config, dict) else None
    if not isinstance(saved, dict):
        raise HydromelError(f"{path}: damaged, it lacks 'tracker'")
    node = locate_classes({"tracker": saved}, ["tracker"], path, plugins)["tracker"]
    assert isinstance(node, dict)
    key = json.dumps(node, sort_keys=True)
    if key not in trackers:
        tracker: Tracker = build(node, "tracker", {}, plugins, Tracker)
        tracker.check()
        trackers[key] = tracker
    sends = not all(isinstance(part, NoTracker) for part in parts_of(trackers[key]).values())
    if sends and not (trust or is_made_here(run, saved)):
        shown = without_credentials(json.dumps(with_stable_names(node)))
        raise HydromelError(
            f"another installation made this run, so its tracker is not used ({shown:.200}); give "
            "--uri URI, or --trust if you know where the run comes from"
        )
    return trackers[key]
