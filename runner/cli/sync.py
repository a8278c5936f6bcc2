"""The command `hydromel-sync`: deliver the records of runs that their trackers do not have yet.

A run whose process on this machine has died is first marked as interrupted (KILLED in MLflow); it is running again
once it is resumed. Runs that another process is writing are skipped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.cli.run_arguments import add_plugins_flag, plugin_names
from runner.common.command_line import Parser, failed
from runner.common.console import show_messages
from runner.common.errors import HydromelError
from runner.tracking.mlflow_tracker import MlflowTracker
from runner.tracking.sync import run_folders, sync_run, tracker_of
from runner.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    show_messages()
    try:
        sys.exit(sync(_parser().parse_args(arguments)))
    except HydromelError as error:
        sys.exit(failed(str(error)))


def sync(options: argparse.Namespace) -> int:
    """Deliver, print one line per run and a summary; return 1 if a run could not be delivered."""
    try:
        given = _given_tracker(options.uri, options.experiment)
        plugins = plugin_names(options.plugins)
        folders = list(dict.fromkeys(path for folder in options.folders for path in run_folders(folder)))
    except HydromelError as error:
        log.error(error)
        return 1
    counts: dict[str, int] = {}
    trackers: dict[str, Tracker] = {}
    for folder in folders:
        try:
            state: str = sync_run(folder, given or tracker_of(folder, trackers, plugins), options.again)
            log.info("%s: %s", folder, state)
        except HydromelError as error:
            state = "not delivered"
            log.error("%s: not delivered: %s", folder, error)
        counts[state] = counts.get(state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    log.info("%d runs: %s", len(folders), states or "none found")
    return int("not delivered" in counts)


def _given_tracker(uri: str | None, experiment: str) -> MlflowTracker | None:
    """Return the tracker named on the command line; a relative SQLite path is relative to the working directory."""
    if uri is None:
        return None
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path.cwd()}/{uri.removeprefix('sqlite:///')}"
    tracker = MlflowTracker(uri=uri, experiment=experiment, artifact_location=None, timeout_s=10.0, retry_s=30.0)
    tracker.check()
    return tracker


def _parser() -> Parser:
    parser = Parser(prog="hydromel-sync", description="Deliver records that the trackers of runs have missed.")
    add = parser.add_argument
    add(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="FOLDER",
        help="folders of runs, or folders with runs below them (default: runs)",
    )
    add("--uri", help="deliver to this MLflow tracking URI instead of each run's own tracker")
    add("--experiment", default="hydromel", help="MLflow experiment used with --uri (default: hydromel)")
    add_plugins_flag(parser)
    add("--again", action="store_true", help="also deliver runs that are marked as delivered; nothing is stored twice")
    return parser


if __name__ == "__main__":
    main()
