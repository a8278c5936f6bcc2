"""`hydromel-compare`: finished runs compared by batching strategy, on the console and as a report to keep."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from reporting.comparison import baseline
from reporting.comparison import changes as history
from reporting.comparison.baseline import Sides
from reporting.comparison.predicted import read_plan
from reporting.comparison.summary import Asked
from reporting.comparison.thresholds import parse
from reporting.mlflow_ui import log_report
from reporting.runs import find, mlflow_download
from reporting.runs.run import Found
from reporting.views import console, csv_table, report
from reporting.views.files import slug, write
from reporting.views.report import Report
from runner.common.command_line import Parser, failed, number
from runner.common.errors import HydromelError

HIGHEST_CONFIDENCE = 0.999  # what lies beyond, no thousands of resamples tell


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code. Errors are one line, unless HYDRA_FULL_ERROR=1."""
    try:
        return compare(_parser().parse_args(arguments))
    except (HydromelError, OSError) as error:
        return failed(str(error))


def compare(options: argparse.Namespace) -> int:
    """Read, summarise, show and write; the exit code, 1 if a condition failed.

    Raises HydromelError when there is nothing to compare.
    """
    if options.fail_if and options.baseline is None:
        raise HydromelError("--fail-if needs --baseline: a run's folder, a sweep, or the report.json to compare with")
    with tempfile.TemporaryDirectory() as downloads:
        found = _find(options.what, options, Path(downloads))
        made = _make(options, found, Path(downloads))
        if options.csv:
            _write(options.csv, csv_table.to_csv(made.groups))
    files = write(made, options.out or Path("reports") / (slug("+".join(options.what)) or "all"))
    if options.json:
        _write(options.json, report.to_json(made))
    console.show(made)  # last: whoever reads only its first lines (`| head`) has the report all the same
    print(f"Report: {files[0]}")
    if not options.no_mlflow:
        log_report.offer(made, found, files, options.tracking_uri)
    return console.judgement(made.history) if made.history else 0


def _make(options: argparse.Namespace, found: list[Found], downloads: Path) -> Report:
    predicted = None if options.predicted is None else read_plan(options.predicted)
    asked = Asked(options.target, options.confidence, options.margin, predicted)
    made = report.make(options.what, found, asked)
    if not made.groups:
        raise HydromelError(f"no finished run to compare. {' '.join(report.left_out(made))}")
    if predicted is not None and predicted.title not in (titles := [group.title for group in made.groups]):
        raise HydromelError(
            f"--predicted {options.predicted}: it is about {predicted.title}; the runs are {'; '.join(titles)}"
        )
    if options.baseline is None:
        return made
    now = baseline.of_groups(made.groups, [item.run for item in found if item.run])
    then = _baseline(options, asked, downloads / "baseline")
    return replace(made, history=history.compared(options.baseline, now, then, options.fail_if, options.confidence))


def _baseline(options: argparse.Namespace, asked: Asked, downloads: Path) -> Sides:
    if Path(options.baseline).is_file():
        return baseline.of_report(Path(options.baseline))
    found = _find([options.baseline], options, downloads)
    made = report.make([options.baseline], found, asked)
    if not made.groups:
        raise HydromelError(f"--baseline {options.baseline}: no finished run. {' '.join(report.left_out(made))}")
    return baseline.of_groups(made.groups, [item.run for item in found if item.run])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _find(what: list[str], options: argparse.Namespace, downloads: Path) -> list[Found]:
    names = [each for each in what if not each.startswith(mlflow_download.PREFIX)]
    experiments = [each.removeprefix(mlflow_download.PREFIX) for each in what if each not in names]
    if experiments and options.tracking_uri is None:
        raise HydromelError(f"--tracking-uri is missing: where is the MLflow experiment '{experiments[0]}'?")
    found = find.find(names, options.runs) if names or not experiments else []
    for at, experiment in enumerate(experiments):
        found += mlflow_download.download(experiment, options.tracking_uri, downloads / str(at))
    return find.unique(found)


def _parser() -> Parser:
    parser = Parser(
        prog="hydromel-compare",
        description="Compare finished runs by batching strategy: quality, throughput, padding, memory.",
        epilog="Runs that differ in batching, seed and turn alone are compared; others stand in tables of their own.",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="a folder with runs below it, a sweep id, an experiment, or mlflow:EXPERIMENT (default: all runs)",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: reports/WHAT)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too, unrounded")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row a run: its settings and all its figures")
    parser.add_argument(
        "--predicted", type=Path, metavar="FILE", help="of hydromel-plan --json: score what it predicts of these runs"
    )
    parser.add_argument(
        "--baseline",
        metavar="WHAT",
        help="show what changed since these runs: a folder, a sweep, an experiment, or an earlier report.json",
    )
    parser.add_argument(
        "--fail-if",
        action="append",
        type=parse,
        default=[],
        metavar="CONDITION",
        help="exit with 1 if a figure changed beyond this, and not by chance: 'test/f1 < -1.0', 'speed < -5%%', "
        "'memory > 10%%' (repeatable)",
    )
    parser.add_argument(
        "--target",
        type=_finite,
        metavar="VALUE",
        help="quality on valid to be timed (default: one that every run reached)",
    )
    parser.add_argument(
        "--confidence", type=_share, default=0.95, help="of the intervals, between 0 and 1 (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=number(0),
        default=1.0,
        metavar="POINTS",
        help="differences in quality below it do not matter: percentage points, or percent of padmask's where less is "
        "better (default: %(default)s)",
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow store with the runs, e.g. sqlite:///mlflow.db")
    parser.add_argument(
        "--no-mlflow", action="store_true", help="do not log the report to the MLflow where its runs were logged"
    )
    return parser


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _share(text: str) -> float:
    if not 0 < (value := float(text)) <= HIGHEST_CONFIDENCE:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {HIGHEST_CONFIDENCE}")
    return value


if __name__ == "__main__":
    sys.exit(main())
