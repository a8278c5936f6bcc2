"""`hydromel-compare`: finished runs compared by batching strategy, on the console and as a report to keep."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from reporting import console, mlflow_runs, report, report_run, runs
from reporting.files import slug, write
from reporting.run import Found
from reporting.summary import Asked
from runner.command_line import Parser, failed, number
from runner.errors import HydromelError


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code. Errors are one line, unless HYDRA_FULL_ERROR=1."""
    try:
        compare(_parser().parse_args(arguments))
    except (HydromelError, OSError) as error:
        return failed(str(error))
    return 0


def compare(options: argparse.Namespace) -> None:
    """Read, summarise, show and write. Raises HydromelError when there is nothing to compare."""
    with tempfile.TemporaryDirectory() as downloads:
        found = _find(options, Path(downloads))
        made = report.make(options.what, found, Asked(options.target, options.confidence, options.margin))
    if not made.groups:
        raise HydromelError(f"no finished run to compare. {' '.join(report.left_out(made))}")
    files = write(made, options.out or Path("reports") / (slug("+".join(options.what)) or "all"))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(report.to_json(made), encoding="utf-8")
    console.show(made)  # last: whoever reads only its first lines (`| head`) has the report all the same
    print(f"Report: {files[0]}")
    if not options.no_mlflow:
        report_run.offer(made, found, files, options.tracking_uri)


def _find(options: argparse.Namespace, downloads: Path) -> list[Found]:
    names = [what for what in options.what if not what.startswith(mlflow_runs.PREFIX)]
    experiments = [what.removeprefix(mlflow_runs.PREFIX) for what in options.what if what not in names]
    if experiments and options.tracking_uri is None:
        raise HydromelError(f"--tracking-uri is missing: where is the MLflow experiment '{experiments[0]}'?")
    found = runs.find(names, options.runs) if names or not experiments else []
    for at, experiment in enumerate(experiments):
        found += mlflow_runs.download(experiment, options.tracking_uri, downloads / str(at))
    return runs.unique(found)


def _parser() -> Parser:
    parser = Parser(
        prog="hydromel-compare",
        description="Compare finished runs by batching strategy: quality, throughput, padding, memory.",
        epilog="Runs that differ in batching and seed alone are compared; others stand in tables of their own.",
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
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
