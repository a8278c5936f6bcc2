"""Delivery of records that the trackers of runs do not have yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from runner.common import run_schema
from runner.common.bounded import check_contents, read_yaml
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.config.saved import locate_classes
from runner.tracking.run_folder import is_alive, mark_dead, read_run
from runner.tracking.tracker import DeliveryError, Tracker, is_delivered

State = Literal["delivered", "up to date", "running", "no tracker"]


def sync_run(folder: Path, tracker: Tracker, again: bool = False) -> State:
    """Deliver one run, unless it is being written or (without `again`) is marked as delivered.

    Raises:
        HydromelError: the folder is damaged or holds links, or the store could not be reached.
    """
    check_contents(folder)
    if is_alive(folder):
        return "running"
    mark_dead(folder)
    if tracker.target(folder) == "none":
        return "no tracker"
    if not again and is_delivered(folder, tracker):
        return "up to date"
    tracker.deliver(folder, final=True)
    return "delivered"


def deliver_pending(root: Path, tracker: Tracker, plugins: Sequence[str] = ()) -> int:
    """Deliver the ended runs below `root` that the same target still lacks; return their number.

    A run calls this at its end with its own `tracker`, for earlier runs during which the store was unreachable.

    Raises:
        DeliveryError: the store is unreachable.
    """
    count, trackers = 0, dict[str, Tracker]()
    for folder in run_folders(root):
        try:
            same = tracker_of(folder, trackers, plugins).target(folder) == tracker.target(folder)
            count += same and sync_run(folder, tracker) == "delivered"
        except DeliveryError:
            raise
        except HydromelError:
            continue  # a damaged folder is no matter of this run; hydromel-sync reports it
    return count


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs at or below `root`, oldest first. Raises HydromelError if `root` does not exist."""
    if not root.is_dir():
        raise HydromelError(f"{root}: no such folder; give the folder of a run, or one with runs below it")
    return [path.parent for path in sorted(root.rglob(run_schema.RUN), key=lambda path: path.stat().st_mtime)]


def tracker_of(folder: Path, trackers: dict[str, Tracker], plugins: Sequence[str] = ()) -> Tracker:
    """Return the tracker in the run's config; equal configs share one object, which keeps its connection.

    Args:
        trackers: those that were built before, by their options; a new one is added.
        plugins: modules that the user, not the run, allows.

    Raises:
        HydromelError: the config names a class that is neither registered nor in a plugin.
    """
    read_run(folder)  # first, so that a folder that is not a run gets an error that says so
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
    return trackers[key]
