"""The command `hydromel-compare`: compare finished runs by batching strategy, on the console and in a report."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from reporting.comparison import baseline, changes
from reporting.comparison.baseline import Sides
from reporting.comparison.predicted import read_plan
from reporting.comparison.summary import CompareOptions
from reporting.mlflow_ui import log_report
from reporting.mlflow_ui.log_best import log_best
from reporting.plots.run import RunPlots
from reporting.runs import find, mlflow_download
from reporting.runs.run import FoundRun
from reporting.views import console, report
from reporting.views.files import slug, write
from reporting.views.report import ComparisonReport
from runner.common.bounded import check_contents
from runner.common.errors import HydromelError
from runner.common.files import write_output
from runner.common.run_names import run_name
from runner.common.run_schema import PLOTS
from runner.terminal.command_line import Parser, exit_code, number

log = logging.getLogger(__name__)
HIGHEST_CONFIDENCE = 0.999  # a higher one would need more resamples than the bootstrap draws


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code. Errors are one line, unless HYDRA_FULL_ERROR=1."""
    return exit_code(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    try:
        return compare(options)
    except BrokenPipeError:
        raise
    except OSError as error:  # of a file that is read or written
        raise HydromelError(str(error)) from error


def compare(options: argparse.Namespace) -> int:
    """Read the runs, compare them, write the report and print it. Return the exit code: 1 if a condition failed.

    Raises HydromelError when there is nothing to compare.
    """
    if options.fail_if and options.baseline is None:
        raise HydromelError("--fail-if needs --baseline: a run's folder, a sweep, or the report.json to compare with")
    if options.register is not None and not options.log_best:
        raise HydromelError("--register names the model that --log-best logs; give both")
    with tempfile.TemporaryDirectory() as downloads:
        found_runs = _find(options.what, options, Path(downloads))
        comparison = _compare(options, found_runs, Path(downloads))
        if options.csv:
            _write(options.csv, report.to_csv(comparison.groups))
    if options.run_plots:
        _draw_run_plots(found_runs)
    files = write(comparison, options.out or Path("reports") / (slug("+".join(options.what)) or "all"))
    if options.json:
        _write(options.json, report.to_json(comparison))
    console.show(comparison)  # last, so that the report is written even if only the first lines are read (`| head`)
    log.info("Report: %s", files[0])
    if not options.no_mlflow:
        log_report.try_to_log(comparison, found_runs, files, options.tracking_uri)
    if options.log_best:
        log_best(options.what, found_runs, options.tracking_uri, options.register)
    return console.print_failures(comparison.history) if comparison.history else 0


def _draw_run_plots(found_runs: list[FoundRun]) -> None:
    """Draw the plots of each finished run into its folder; MLflow has the plots of its own runs."""
    for folder in (item.folder for item in found_runs if item.run is not None and item.folder.is_dir()):
        check_contents(folder)
        RunPlots().draw(folder)
        log.info("Plots: %s", folder / PLOTS)


def _compare(options: argparse.Namespace, found_runs: list[FoundRun], downloads: Path) -> ComparisonReport:
    predicted = None if options.predicted is None else read_plan(options.predicted)
    compare_options = CompareOptions(options.target, options.confidence, options.margin, predicted)
    comparison = report.build(options.what, found_runs, compare_options)
    if not comparison.groups:
        raise HydromelError(f"no finished run to compare. {' '.join(report.left_out(comparison))}")
    titles = [group.title for group in comparison.groups]
    if predicted is not None and predicted.title not in titles:
        raise HydromelError(
            f"--predicted {options.predicted} is for {predicted.title}, but the runs are {'; '.join(titles)}; name "
            "runs or a plan that match"
        )
    if options.baseline is None:
        return comparison
    now = baseline.sides_of_groups(comparison.groups, [item.run for item in found_runs if item.run])
    then = _baseline(options, compare_options, downloads / "baseline")
    history = changes.compare(options.baseline, now, then, options.fail_if, options.confidence)
    return replace(comparison, history=history)


def _baseline(options: argparse.Namespace, compare_options: CompareOptions, downloads: Path) -> Sides:
    if Path(options.baseline).is_file():
        return baseline.sides_of_report(Path(options.baseline))
    found_runs = _find([options.baseline], options, downloads)
    comparison = report.build([options.baseline], found_runs, compare_options)
    if not comparison.groups:
        raise HydromelError(f"--baseline {options.baseline}: no finished run. {' '.join(report.left_out(comparison))}")
    return baseline.sides_of_groups(comparison.groups, [item.run for item in found_runs if item.run])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, text)


def _find(what: list[str], options: argparse.Namespace, downloads: Path) -> list[FoundRun]:
    names = [name for name in what if not name.startswith(mlflow_download.PREFIX)]
    experiments = [name.removeprefix(mlflow_download.PREFIX) for name in what if name not in names]
    if experiments and options.tracking_uri is None:
        raise HydromelError(
            f"--tracking-uri is missing: give the MLflow store of the experiment '{experiments[0]}', such as "
            "sqlite:///mlflow.db"
        )
    found_runs = find.find(names, options.runs) if names or not experiments else []
    for place, experiment in enumerate(experiments):
        found_runs += mlflow_download.download(experiment, options.tracking_uri, downloads / str(place))
    return find.unique(found_runs)


def parser() -> Parser:
    command = Parser(
        prog="hydromel-compare",
        description="Compare finished runs by batching strategy: quality, throughput, padding, memory.",
        epilog="Runs that differ only in batching, seed and turn are compared; other runs form separate tables.",
    )
    add = command.add_argument
    what = "run, sweep or experiment: a folder, a name or an id below --runs; or mlflow:EXPERIMENT (default: all runs)"
    add("what", nargs="*", type=run_name, metavar="WHAT", help=what)
    add("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (default: runs)")
    add("--out", type=Path, metavar="DIR", help="folder of the report (default: reports/WHAT)")
    add("--json", type=Path, metavar="FILE", help="write all figures, unrounded, to FILE (a copy of report.json)")
    table = "write a table to FILE with one row per run: its settings and all figures"
    add("--csv", type=Path, metavar="FILE", help=table)
    plan = "compare the runs with the predictions in FILE, written by hydromel-plan --json"
    add("--predicted", type=Path, metavar="FILE", help=plan)
    earlier = "show the changes since these runs: folder, sweep, experiment, or an earlier report.json"
    add("--baseline", metavar="WHAT", help=earlier)
    condition = (
        "exit with 1 if a figure changed beyond this bound, and not by chance: 'test/f1 < -1.0', 'speed < -5%%', "
        "'memory > 10%%' (repeatable)"
    )
    add("--fail-if", action="append", type=changes.parse, default=[], metavar="CONDITION", help=condition)
    target = "quality on valid whose time is reported (default: the best that every run reached)"
    add("--target", type=number(None), metavar="VALUE", help=target)
    confidence = "confidence of the intervals, between 0 and 1 (default: %(default)s)"
    add("--confidence", type=number(0, HIGHEST_CONFIDENCE), default=0.95, help=confidence)
    margin = (
        "difference in quality that does not matter: percentage points, or percent of padmask's quality for metrics "
        "of another unit (default: %(default)s)"
    )
    add("--margin", type=number(0), default=1.0, metavar="POINTS", help=margin)
    add("--run-plots", action="store_true", help="also draw the curves and errors of each run, in plots/ of its folder")
    add("--tracking-uri", metavar="URI", help="MLflow store of the runs, such as sqlite:///mlflow.db")
    best = "log the checkpoint of the run with the best quality on valid as a model in MLflow, beside the runs"
    add("--log-best", action="store_true", help=best)
    named = "with --log-best: register the model as a version of NAME, with the alias best"
    add("--register", metavar="NAME", type=run_name, help=named)
    add("--no-mlflow", action="store_true", help="do not log the report to the MLflow store of its runs")
    return command


if __name__ == "__main__":
    sys.exit(main())
