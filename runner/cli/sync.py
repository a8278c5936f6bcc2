"""The command `hydromel-sync`: deliver the records of runs that their trackers do not have yet.

A run whose process on this machine has died is first marked as interrupted (KILLED in MLflow); it is running again
once it is resumed. Runs that another process is writing are skipped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runner.cli.run_arguments import add_plugins_flag, add_runs_flag
from runner.common.errors import HydromelError
from runner.common.run_names import find_run, run_name
from runner.terminal.command_line import Parser, exit_code
from runner.terminal.progress import track
from runner.tracking.mlflow_tracker import MlflowTracker
from runner.tracking.several import parts_of
from runner.tracking.sync import run_folders, sync_run, tracker_of
from runner.tracking.tracker import Tracker

log = logging.getLogger(__name__)
_NOT_DELIVERED = "not delivered"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0, 1 (a run could not be delivered, or the input is bad), 130 (interrupted)."""
    return exit_code(lambda: _sync(parser().parse_args(arguments)))


def _sync(options: argparse.Namespace) -> int:
    """Deliver, and print one line per run and a summary."""
    given = _given_tracker(options.uri, options.experiment)
    named = [find_run(name, options.runs) if not Path(name).is_dir() else Path(name) for name in options.named]
    roots = [folder or Path(name) for folder, name in zip(named, options.named, strict=True)] or [options.runs]
    folders = list(dict.fromkeys(path for root in roots for path in run_folders(root)))
    counts, trackers = Counter[str](), dict[str, Tracker]()
    for folder in track(folders, "delivering", len(folders)):
        try:
            tracker = given or tracker_of(folder, trackers, options.plugins, options.trust)
        except HydromelError as error:
            counts[_not_delivered(str(folder), error)] += 1
            continue
        for name, part in parts_of(tracker).items():
            what = f"{folder} ({name})" if name else str(folder)
            try:
                state: str = sync_run(folder, part, options.again, options.restore)
                log.info("%s: %s", what, state)
            except HydromelError as error:  # one tracker failed; others may be reachable
                state = _not_delivered(what, error)
            counts[state] += 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    log.info("%d runs: %s", len(folders), states or "none found")
    return int(_NOT_DELIVERED in counts)


def _not_delivered(what: str, error: HydromelError) -> str:
    log.error("%s: %s: %s", what, _NOT_DELIVERED, error)
    return _NOT_DELIVERED


def _given_tracker(uri: str | None, experiment: str) -> MlflowTracker | None:
    """Return the tracker named on the command line; a relative SQLite path is relative to the working directory."""
    if uri is None:
        return None
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path.cwd()}/{uri.removeprefix('sqlite:///')}"
    tracker = MlflowTracker(
        uri=uri,
        experiment=experiment,
        artifact_location=None,
        log_model="auto",
        register=None,
        timeout_s=10.0,
        retry_s=30.0,
    )
    tracker.check()
    return tracker


def parser() -> Parser:
    command = Parser(prog="hydromel-sync", description="Deliver records that the trackers of runs have missed.")
    add = command.add_argument
    named = "runs: folders, names or ids below --runs, or folders with runs below them (default: all runs)"
    add("named", nargs="*", type=run_name, metavar="RUN", help=named)
    add_runs_flag(command)
    add("--uri", help="deliver to this MLflow tracking URI instead of each run's own tracker")
    add("--experiment", default="hydromel", help="MLflow experiment used with --uri")
    add("--trust", action="store_true", help="also use the trackers of runs that another installation made")
    add_plugins_flag(command)
    add("--again", action="store_true", help="also deliver runs that are marked as delivered; nothing is stored twice")
    add("--restore", action="store_true", help="bring back runs that were deleted in MLflow")
    return command


if __name__ == "__main__":
    sys.exit(main())
