"""hydromel-sync: deliver what runs' folders hold and their trackers have not got yet.

A run whose process died on this machine is marked as interrupted first (KILLED in MLflow); when it is resumed it
becomes running again. Runs that are being written are left to their own process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from runner import names
from runner.build import build
from runner.command_line import Parser, failed
from runner.errors import HydromelError
from runner.mlflow_tracker import MlflowTracker
from runner.records import is_alive, mark_dead, read_run
from runner.saved_config import locate_classes
from runner.tracker import DeliveryError, Tracker, is_delivered

State = Literal["delivered", "up to date", "running", "no tracker"]


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        sys.exit(sync(_parser().parse_args(arguments)))
    except HydromelError as error:
        sys.exit(failed(str(error)))


def sync(options: argparse.Namespace) -> int:
    """Deliver, print one line a run and a summary; 1 if something could not be delivered."""
    try:
        given = _given_tracker(options.uri, options.experiment)
        found = list(dict.fromkeys(path for folder in options.folders for path in run_folders(folder)))
    except HydromelError as error:
        print(error, file=sys.stderr)
        return 1
    counts: dict[str, int] = {}
    trackers: dict[str, Tracker] = {}
    for folder in found:
        try:
            state: str = sync_run(folder, given or _tracker_of(folder, trackers), options.again)
            print(f"{folder}: {state}")
        except HydromelError as error:
            state = "not delivered"
            print(f"{folder}: not delivered: {error}", file=sys.stderr)
        counts[state] = counts.get(state, 0) + 1
    print(f"{len(found)} runs: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none found'}")
    return int("not delivered" in counts)


def sync_run(folder: Path, tracker: Tracker, again: bool = False) -> State:
    """Deliver one run, unless it is being written or (but for `again`) its notes say that all was delivered.

    Raises:
        HydromelError: the folder is damaged, or the store could not be reached.
    """
    if is_alive(folder):
        return "running"
    mark_dead(folder)
    if tracker.target(folder) == "none":
        return "no tracker"
    if not again and is_delivered(folder, tracker):
        return "up to date"
    tracker.deliver(folder, final=True)
    return "delivered"


def deliver_pending(root: Path, tracker: Tracker) -> int:
    """Deliver the runs under `root` that have ended undelivered and belong to the same target; return how many.

    A run calls this at its end, for earlier ones that found the store away.

    Raises:
        DeliveryError: the store is away (again).
    """
    count, trackers = 0, dict[str, Tracker]()
    for folder in run_folders(root):
        try:
            same = _tracker_of(folder, trackers).target(folder) == tracker.target(folder)
            count += same and sync_run(folder, tracker) == "delivered"
        except DeliveryError:
            raise
        except HydromelError:
            continue  # a damaged folder is no matter of this run; hydromel-sync reports it
    return count


def run_folders(root: Path) -> list[Path]:
    """Folders of runs at or below `root`, oldest first.

    Raises:
        HydromelError: `root` is not there.
    """
    if not root.is_dir():
        raise HydromelError(f"{root}: no such folder; give the folder of a run, or one with runs below it")
    return sorted((path.parent for path in root.rglob(names.RUN)), key=lambda path: (path / names.RUN).stat().st_mtime)


def _tracker_of(folder: Path, made: dict[str, Tracker]) -> Tracker:
    """The tracker that the run's own config names, one object for equal configs (it keeps its connection).

    Raises:
        HydromelError: the config names none of the registered ones: a saved run may not have code run.
    """
    read_run(folder)  # first, so that a folder which is none is called so
    path = folder / names.RESOLVED
    try:
        config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        node = dict(config["tracker"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise HydromelError(f"{path}: cannot read its 'tracker' ({' '.join(str(error).split())})") from error
    node = locate_classes({"tracker": node}, ["tracker"], path, plugins=None)["tracker"]
    key = repr(sorted(node.items(), key=lambda item: item[0]))
    if key not in made:
        tracker: Tracker = build(node, "tracker", {})
        tracker.check()
        made[key] = tracker
    return made[key]


def _given_tracker(uri: str | None, experiment: str) -> MlflowTracker | None:
    """The one named on the command line; a relative sqlite file is meant from here, not from where a run began."""
    if uri is None:
        return None
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path.cwd()}/{uri.removeprefix('sqlite:///')}"
    tracker = MlflowTracker(uri=uri, experiment=experiment, artifact_location=None, timeout_s=10.0, retry_s=30.0)
    tracker.check()
    return tracker


def _parser() -> Parser:
    parser = Parser(prog="hydromel-sync", description="Deliver runs to the trackers they were given.")
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], metavar="FOLDER", help="runs, or above (runs)"
    )
    parser.add_argument("--uri", help="deliver to this MLflow tracking URI instead of each run's own tracker")
    parser.add_argument("--experiment", default="hydromel", help="MLflow experiment that goes with --uri (hydromel)")
    parser.add_argument("--again", action="store_true", help="also runs that are noted as delivered; none is doubled")
    return parser


if __name__ == "__main__":
    main()
