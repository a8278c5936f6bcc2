"""A whole comparison with the texts that all its views share, and its JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from reporting.comparison.changes import BaselineComparison
from reporting.comparison.summary import CompareOptions, RunGroup, groups
from reporting.runs.measures import SECTIONS
from reporting.runs.run import MACHINE, FoundRun
from reporting.views import table_format, tables
from reporting.views.headline import conclusion
from reporting.views.table_format import Table
from runner.common import files
from runner.common.pages import markdown_text

LEFT_OUT_SHOWN = 8  # unfinished runs named in the line on them
IDENTITY = ("title", "comparison_hash", "data_fingerprint", "metric", "strategy", "seed", "turn", "run_id")


@dataclass(frozen=True)
class ComparisonReport:
    """A comparison of the runs named by `what`. `unfinished` is folder -> status, `damaged` has one line per run."""

    what: list[str]
    runs: int
    confidence: float
    groups: list[RunGroup]
    unfinished: dict[str, str]
    damaged: list[str]
    history: BaselineComparison | None = None  # changes since --baseline


def build(what: list[str], found_runs: list[FoundRun], compare_options: CompareOptions) -> ComparisonReport:
    """Compare the finished runs among those found."""
    runs = [item.run for item in found_runs if item.run]
    return ComparisonReport(
        what=what,
        runs=len(runs),
        confidence=compare_options.confidence,
        groups=groups(runs, compare_options),
        unfinished={str(item.folder): item.status for item in found_runs if not item.run and not item.problem},
        damaged=[item.problem for item in found_runs if item.problem],
    )


def title(report: ComparisonReport) -> str:
    """Return a title that says what is compared: strategies, settings, or only seeds."""
    if any(len(group.strategies) > 1 for group in report.groups):
        subject = "Batching strategies compared"
    else:
        subject = "Settings compared" if len(report.groups) > 1 else "Runs"
    return f"{subject}: {', '.join(report.what) or 'all runs'}"


def first_tables(report: ComparisonReport) -> list[Table]:
    """Return the tables above the groups: changes since the baseline, and an overview of all groups of one title."""
    changes = tables.change_tables(report.history) if report.history else []
    return changes + tables.overviews(report.groups, report.confidence)


def warnings(report: ComparisonReport) -> list[str]:
    """Return the lines at the top: groups whose runs are not better than a simple model."""
    several = len(report.groups) > 1
    return [
        f"{tables.heading(group)}: {group.unbeaten}" if several else group.unbeaten
        for group in report.groups
        if group.unbeaten
    ]


def last_lines(report: ComparisonReport) -> list[str]:
    """Return the lines below the groups: on the baseline, on conditions, and on runs that were left out."""
    return (tables.change_lines(report.history) if report.history else []) + left_out(report)


def left_out(report: ComparisonReport) -> list[str]:
    """Return a line on all unfinished runs, and a line on each damaged one."""
    lines = []
    if report.unfinished:
        named = [f"{folder} ({status})" for folder, status in report.unfinished.items()]
        more = f" and {len(named) - LEFT_OUT_SHOWN} more" if len(named) > LEFT_OUT_SHOWN else ""
        lines.append(f"Not finished, so left out: {', '.join(named[:LEFT_OUT_SHOWN])}{more}.")
    return lines + [f"Left out: {problem}." for problem in report.damaged]


def to_json(report: ComparisonReport) -> str:
    """Return every figure that is shown, unrounded. NaN and infinity become null, since JSON has neither."""
    return files.to_json(report, indent=2, ascii_only=False)


def to_csv(groups: list[RunGroup]) -> str:
    """Return a tidy table: a row per run that counts, in the order of the report; a column per setting and figure.

    Cells are empty where a run lacks a figure or setting; none is a formula.
    """
    rows = [
        dict(zip((*IDENTITY, *MACHINE), (*identity, run.seed, run.turn, run.run_id, *run.machine), strict=True))
        | {f"settings.batching.{name}": value for name, value in strategy.options.items()}
        | {f"settings.{name}": value for name, value in group.settings.items()}
        | run.figures
        for group in groups
        for strategy in group.strategies
        for identity in [(group.title, group.comparison_hash, group.data_fingerprint, group.metric, strategy.name)]
        for run in strategy.runs
    ]
    names = {name for row in rows for name in row}
    settings = sorted(name for name in names if name.startswith("settings."))
    order = list(SECTIONS)
    figures = sorted((order.index(name.partition("/")[0]), name) for name in names if "/" in name)
    file = io.StringIO()
    columns = [*IDENTITY, *MACHINE, *settings, *(name for _, name in figures)]
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: table_format.csv_cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def to_markdown(report: ComparisonReport, images: list[list[str]]) -> str:
    """Return the report as Markdown. `images` are the lines that show the plots of each group."""
    parts = [f"# {markdown_text(title(report))}"]
    parts += [f"**Warning: {markdown_text(line)}**" for line in warnings(report)]
    parts += [table_format.markdown(table) for table in first_tables(report)]
    for group, shown in zip(report.groups, images, strict=True):
        parts.append(f"## {markdown_text(tables.heading(group))}")
        parts.append(markdown_text(conclusion(group, report.confidence)))
        parts += [table_format.markdown(table) for table in tables.tables(group, report.confidence)]
        lines = [*group.sentences, *tables.notes(group), *(f"Warning: {caveat}" for caveat in group.caveats)]
        parts.append("\n".join(f"- {markdown_text(line)}" for line in lines))
        parts += shown
    parts.append("\n".join(f"- {markdown_text(line)}" for line in last_lines(report)))
    return "\n\n".join(part for part in parts if part) + "\n"
