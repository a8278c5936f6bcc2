"""Plots of one finished run in its folder: curves, seconds by phase, scores by class, errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reporting.plots.errors import error_kinds, reliability
from reporting.plots.likelihood import likelihood
from reporting.plots.style import BLUE, ORANGE, PHASES, SETTINGS, new_figure, save
from runner.common import run_schema
from runner.common.records import (
    ClassScores,
    LabelConfusion,
    MetricsLine,
    ResultRecord,
    finite,
    parse_metrics_line,
    parse_result,
    parse_tables,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 40  # with more, a confusion matrix cannot be read


class RunPlots:
    """The drawing of a run's plots into its folder `plots/`."""

    def draw(self, folder: Path) -> list[Path]:
        """Write a PNG for each figure that the run has, and return their paths. The run must have a result.json."""
        import matplotlib  # takes half a second, and is needed only here

        path = folder / run_schema.RESULT
        result = parse_result(path.read_bytes(), str(path))
        records = read_records(folder / run_schema.METRICS)
        target = folder / run_schema.PLOTS
        target.mkdir(exist_ok=True)
        with matplotlib.rc_context(SETTINGS):
            return save(figures(result, records), target, "tight")


def read_records(path: Path) -> list[MetricsLine]:
    """Return the records of metrics.jsonl in order."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    return [parse_metrics_line(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def figures(result: ResultRecord, records: list[MetricsLine]) -> dict[str, Figure]:
    """Return the figures by name, those for which the result has data."""
    metrics = result["metrics"]
    split, values = ("test", metrics["test"]) if "test" in metrics else ("valid", metrics["valid"])
    tables = parse_tables(values)
    drawn = {"curves": curves(result, records), "seconds": seconds(result)}
    for name, table in (("confusion", tables.get("confusion")), ("type_confusion", tables.get("type_confusion"))):
        if table and len(table["labels"]) <= MOST_LABELS:
            drawn[name] = confusion(table, split)
    scores = tables.get("per_class") or tables.get("per_type")
    if scores and len(scores) <= MOST_LABELS:
        drawn["f1_by_class"] = f1_by_class(scores, split)
    if (errors := tables.get("errors")) and len(errors["per_type"]) <= MOST_LABELS:
        drawn["errors"] = error_kinds(errors, split)
    calibrations = {
        "all predictions": tables.get("calibration"),
        "predictions in spans": tables.get("calibration_in_spans"),
    }
    if known := {title: table for title, table in calibrations.items() if table and table["bins"]}:
        drawn["calibration"] = reliability(known, split)
    if "by_position" in tables and "by_frequency" in tables:
        drawn["likelihood"] = likelihood(tables, split)
    return drawn


def curves(result: ResultRecord, records: list[MetricsLine]) -> Figure:
    """Draw training loss and quality on valid over updates."""
    quality = result["quality"]["metric"]
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for axis, name, colour in ((left, "train/loss", BLUE), (right, f"valid/{quality}", ORANGE)):
        points = [
            (record["step"], record["metrics"][name]) for record in records if record["metrics"].get(name) is not None
        ]
        axis.plot(*zip(*points, strict=True), color=colour, marker="o" if len(points) < 30 else None, markersize=4)
        axis.set(xlabel="updates", ylabel=name.replace("/", " "))
        axis.grid(alpha=0.3)
    figure.suptitle(result.get("name", ""), fontsize=11)
    return figure


def seconds(result: ResultRecord) -> Figure:
    """Draw seconds by phase as one stacked bar."""
    figure = new_figure(9, 1.9)
    axis = figure.subplots()
    phases: Mapping[str, object] = result["seconds"]
    left = 0.0
    for phase, colour in PHASES.items():
        width = finite(phases.get(phase)) or 0.0
        axis.barh(0, width, left=left, color=colour, label=f"{phase} {width:.1f} s")
        left += width
    axis.set(xlabel="seconds", yticks=[], xlim=(0, left or 1))
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def confusion(table: LabelConfusion, split: str) -> Figure:
    """Draw the share of each gold label's examples (rows) by predicted label (columns), with counts."""
    labels, counts = table["labels"], table["counts"]
    size = max(3.5, 0.42 * len(labels) + 1.6)
    figure = new_figure(size, size)
    axis = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(labels))
    axis.set_xticks(places, labels, rotation=90)
    axis.set_yticks(places, labels)
    axis.set(xlabel="predicted", ylabel="gold", title=split)
    for row in places:
        for column in places:
            if counts[row][column]:
                colour = "white" if shares[row][column] > 0.5 else "black"
                axis.text(column, row, f"{counts[row][column]}", ha="center", va="center", color=colour, fontsize=7)
    return figure


def f1_by_class(scores: Mapping[str, ClassScores], split: str) -> Figure:
    """Draw F1 of each class or span type with its support, the most frequent on top."""
    ordered = sorted(scores.items(), key=lambda item: item[1]["support"])
    figure = new_figure(6, 0.3 * len(ordered) + 1.1)
    axis = figure.subplots()
    axis.barh([name for name, _ in ordered], [score["f1"] for _, score in ordered], color=BLUE)
    for place, (_, score) in enumerate(ordered):
        axis.text(score["f1"] + 1, place, f"{score['f1']:.1f}  (n={score['support']:,.0f})", va="center", fontsize=9)
    axis.set(xlabel=f"F1 on {split}, %", xlim=(0, 125), xticks=range(0, 101, 20))
    return figure
