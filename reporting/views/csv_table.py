"""The comparison as a tidy table: one row a run, one column a setting or figure, for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io

from reporting.comparison.summary import Group, Strategy
from reporting.runs.figures import SECTIONS
from reporting.runs.run import MACHINE

ABOUT = ("title", "comparison_hash", "data_fingerprint", "metric", "strategy", "seed", "turn", "run_id")


def to_csv(groups: list[Group]) -> str:
    """Runs that count, in the order of the report. A cell is empty where a run has no such figure, or setting."""
    rows = [row for group in groups for strategy in group.strategies for row in _rows(group, strategy)]
    settings = sorted({name for row in rows for name in row if name.startswith("settings.")})
    figures = sorted({name for row in rows for name in row if "/" in name}, key=_place)
    file = io.StringIO()
    writer = csv.DictWriter(file, [*ABOUT, *MACHINE, *settings, *figures], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _rows(group: Group, strategy: Strategy) -> list[dict[str, object]]:
    settings = {f"settings.{name}": value for name, value in group.settings.items()}
    options = {f"settings.batching.{name}": value for name, value in strategy.options.items()}
    about = (group.title, group.comparison_hash, group.data_fingerprint, group.metric, strategy.name)
    return [
        dict(zip(ABOUT, (*about, run.seed, run.turn, run.run_id), strict=True))
        | dict(zip(MACHINE, run.machine, strict=True))
        | options
        | settings
        | run.figures
        for run in strategy.runs
    ]


def _place(figure: str) -> tuple[int, str]:
    return list(SECTIONS).index(figure.partition("/")[0]), figure
