"""`hydromel-compare`: finished runs compared by batching strategy, on the console and as a report to keep."""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from pathlib import Path

from reporting import console, html, mlflow_runs, report, runs
from reporting.plots import Plot, plots
from reporting.report import Report
from reporting.run import Found
from reporting.summary import Asked
from runner.command_line import Parser, failed, number
from runner.errors import HydromelError

LONGEST_NAME = 80  # characters of a file name that is made from what was asked for


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
    page = write(made, options.out or Path("reports") / (slug("+".join(options.what)) or "all"))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(report.to_json(made), encoding="utf-8")
    console.show(made)  # last: whoever reads only its first lines (`| head`) has the report all the same
    print(f"Report: {page}")


def write(made: Report, out: Path) -> Path:
    """report.json, report.md, index.html and PNG plots into `out`, in place of an older report's; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = [plots(group) for group in made.groups]
    images = [_write_images(out, at, made.groups[at].title, each) for at, each in enumerate(drawn)]
    (out / "report.json").write_text(report.to_json(made), encoding="utf-8")
    (out / "report.md").write_text(report.to_markdown(made, images), encoding="utf-8")
    page = out / "index.html"
    page.write_text(html.page(made, drawn), encoding="utf-8")
    return page


def slug(text: str) -> str:
    """`text` as a file name: letters, digits, dots, dashes and underscores; never `..`."""
    return re.sub(r"[^\w.-]+|\.{2,}", "-", text, flags=re.ASCII).strip("-.")[:LONGEST_NAME]


def _write_images(out: Path, at: int, title: str, drawn: list[Plot]) -> list[str]:
    """Writes a group's plots; returns the Markdown that shows them."""
    lines = []
    for plot in drawn:
        name = f"{at + 1}-{slug(title)}-{plot.name}.png"
        (out / name).write_bytes(plot.png)
        lines.append(f"![{plot.caption}]({name})")
    return lines


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
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="where the runs of mlflow:EXPERIMENT are, e.g. sqlite:///mlflow.db"
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
