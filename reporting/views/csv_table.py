"""The comparison as a tidy CSV table for spreadsheets or data frames: a row per run, a column per setting or figure."""

from __future__ import annotations

import csv
import io

from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.runs.figures import SECTIONS
from reporting.runs.run import MACHINE

IDENTITY = ("title", "comparison_hash", "data_fingerprint", "metric", "strategy", "seed", "turn", "run_id")


def to_csv(groups: list[RunGroup]) -> str:
    """Return the runs that count, in the order of the report. Cells are empty where a run lacks a figure or setting."""
    rows = [row for group in groups for strategy in group.strategies for row in _rows(group, strategy)]
    settings = sorted({name for row in rows for name in row if name.startswith("settings.")})
    figures = sorted({name for row in rows for name in row if "/" in name}, key=_sort_key)
    file = io.StringIO()
    writer = csv.DictWriter(file, [*IDENTITY, *MACHINE, *settings, *figures], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _rows(group: RunGroup, strategy: StrategySummary) -> list[dict[str, object]]:
    settings = {f"settings.{name}": value for name, value in group.settings.items()}
    options = {f"settings.batching.{name}": value for name, value in strategy.options.items()}
    identity = (group.title, group.comparison_hash, group.data_fingerprint, group.metric, strategy.name)
    return [
        dict(zip(IDENTITY, (*identity, run.seed, run.turn, run.run_id), strict=True))
        | dict(zip(MACHINE, run.machine, strict=True))
        | options
        | settings
        | run.figures
        for run in strategy.runs
    ]


def _sort_key(figure: str) -> tuple[int, str]:
    return list(SECTIONS).index(figure.partition("/")[0]), figure
