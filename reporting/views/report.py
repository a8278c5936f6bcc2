"""A whole comparison, and what all of its views say: groups, runs left out, and the JSON that holds every figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from reporting.comparison.changes import History
from reporting.comparison.summary import Asked, Group, groups
from reporting.runs.run import Found
from reporting.views import change_tables, table_format, tables
from reporting.views.headline import answer
from reporting.views.table_format import Table

LEFT_OUT_SHOWN = 8  # folders of unfinished runs named in the one line on them


@dataclass(frozen=True)
class Report:
    """What was asked for, and what was found. `unfinished` is folder -> status; `damaged` holds one line a run."""

    what: list[str]
    runs: int
    confidence: float
    groups: list[Group]
    unfinished: dict[str, str]
    damaged: list[str]
    history: History | None = None  # against --baseline


def make(what: list[str], found: list[Found], asked: Asked) -> Report:
    runs = [item.run for item in found if item.run]
    return Report(
        what=what,
        runs=len(runs),
        confidence=asked.confidence,
        groups=groups(runs, asked),
        unfinished={str(item.folder): item.status for item in found if not item.run and not item.problem},
        damaged=[item.problem for item in found if item.problem],
    )


def title(report: Report) -> str:
    """Says what is compared: strategies, settings, or nothing but seeds."""
    if any(len(group.strategies) > 1 for group in report.groups):
        what = "Batching strategies compared"
    else:
        what = "Settings compared" if len(report.groups) > 1 else "Runs"
    return f"{what}: {', '.join(report.what) or 'all runs'}"


def first_tables(report: Report) -> list[Table]:
    """What stands above the groups: changes since the baseline, and all groups of one title beside each other."""
    changes = change_tables.tables(report.history) if report.history else []
    return changes + tables.overviews(report.groups, report.confidence)


def last_lines(report: Report) -> list[str]:
    """What stands below them: how changes are to be read, which conditions fail, and which runs were left out."""
    return (change_tables.lines(report.history) if report.history else []) + left_out(report)


def left_out(report: Report) -> list[str]:
    """A line on the unfinished runs, and one on each damaged one."""
    lines = []
    if report.unfinished:
        named = [f"{folder} ({status})" for folder, status in report.unfinished.items()]
        more = f" and {len(named) - LEFT_OUT_SHOWN} more" if len(named) > LEFT_OUT_SHOWN else ""
        lines.append(f"Not finished, so left out: {', '.join(named[:LEFT_OUT_SHOWN])}{more}.")
    return lines + [f"Left out: {problem}." for problem in report.damaged]


def to_json(report: Report) -> str:
    """Every figure that is shown, unrounded. Figures that are not finite are null, as JSON has no NaN."""
    return json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(report: Report, images: list[list[str]]) -> str:
    """`images`: for each group the lines of Markdown that show its plots."""
    parts = [f"# {table_format.escape(title(report))}"]
    parts += [table_format.markdown(table) for table in first_tables(report)]
    for group, shown in zip(report.groups, images, strict=True):
        parts.append(f"## {table_format.escape(tables.heading(group))}")
        parts.append(table_format.escape(answer(group)))
        parts += [table_format.markdown(table) for table in tables.tables(group, report.confidence)]
        said = [*group.sentences, *tables.notes(group), *(f"Beware: {caveat}" for caveat in group.caveats)]
        parts.append("\n".join(f"- {table_format.escape(line)}" for line in said))
        parts += shown
    parts.append("\n".join(f"- {table_format.escape(line)}" for line in last_lines(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
