"""Plots of one finished run, drawn into its folder: curves, seconds by phase, figures of parts, what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting.plots.errors import error_kinds, reliability
from reporting.plots.likelihood import likelihood
from reporting.plots.style import DPI, PHASES, SETTINGS
from runner.common import run_schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 40  # a confusion matrix of more cannot be read
CALIBRATIONS = {"calibration": "all answers", "calibration_in_spans": "answers in spans"}
BLUE, ORANGE = "#0072B2", "#D55E00"


class RunPlots:
    """Draws `plots/` of a run."""

    def draw(self, folder: Path) -> list[Path]:
        """Write a PNG for each figure that the run has, and give their paths; result.json must be there."""
        import matplotlib  # half a second, needed here alone

        result = json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8"))
        records = read_records(folder / run_schema.METRICS)
        target = folder / run_schema.PLOTS
        target.mkdir(exist_ok=True)
        written = []
        with matplotlib.rc_context(SETTINGS):
            for name, figure in figures(result, records).items():
                path = target / f"{name}.png"
                figure.savefig(path, dpi=DPI, bbox_inches="tight")
                written.append(path)
        return written


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, in their order."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures(result: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Figure]:
    """Name -> figure, of those that there is something to draw for."""
    split = "test" if "test" in result["metrics"] else "valid"
    metrics = result["metrics"][split]
    drawn = {"curves": curves(result, records), "seconds": seconds(result)}
    for name in ("confusion", "type_confusion"):
        if (table := metrics.get(name)) and len(table["labels"]) <= MOST_LABELS:
            drawn[name] = confusion(table, split)
    scores = metrics.get("per_class") or metrics.get("per_type")
    if scores and len(scores) <= MOST_LABELS:
        drawn["f1_by_class"] = f1_by_class(scores, split)
    if (errors := metrics.get("errors")) and len(errors["per_type"]) <= MOST_LABELS:
        drawn["errors"] = error_kinds(errors, split)
    calibrations = {title: metrics[name] for name, title in CALIBRATIONS.items() if metrics.get(name, {}).get("bins")}
    if calibrations:
        drawn["calibration"] = reliability(calibrations, split)
    if {"by_position", "by_frequency"} <= metrics.keys():
        drawn["likelihood"] = likelihood(metrics, split)
    return drawn


def curves(result: Mapping[str, Any], records: list[dict[str, Any]]) -> Figure:
    """Training loss and the quality on valid, over updates."""
    from matplotlib.figure import Figure

    quality = result["quality"]["metric"]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, name, colour in ((left, "train/loss", BLUE), (right, f"valid/{quality}", ORANGE)):
        points = [(one["step"], one["metrics"][name]) for one in records if one["metrics"].get(name) is not None]
        axis.plot(*zip(*points, strict=True), color=colour, marker="o" if len(points) < 30 else None, markersize=4)
        axis.set(xlabel="updates", ylabel=name.replace("/", " "))
        axis.grid(alpha=0.3)
    figure.suptitle(result["name"], fontsize=11)
    return figure


def seconds(result: Mapping[str, Any]) -> Figure:
    """Where the time went: one stacked bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.9), layout="constrained")
    axis = figure.subplots()
    left = 0.0
    for phase, colour in PHASES.items():
        width = result["seconds"][phase]
        axis.barh(0, width, left=left, color=colour, label=f"{phase} {width:.1f} s")
        left += width
    axis.set(xlabel="seconds", yticks=[], xlim=(0, left or 1))
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def confusion(table: Mapping[str, Any], split: str) -> Figure:
    """Share of each gold label's examples (rows) that got each answer (columns), with the counts."""
    from matplotlib.figure import Figure

    labels, counts = table["labels"], table["counts"]
    size = max(3.5, 0.42 * len(labels) + 1.6)
    figure = Figure(figsize=(size, size), layout="constrained")
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


def f1_by_class(scores: Mapping[str, Mapping[str, float]], split: str) -> Figure:
    """F1 of each class or span type, the most frequent on top, with its support."""
    from matplotlib.figure import Figure

    ordered = sorted(scores.items(), key=lambda item: item[1]["support"])
    figure = Figure(figsize=(6, 0.3 * len(ordered) + 1.1), layout="constrained")
    axis = figure.subplots()
    axis.barh([name for name, _ in ordered], [one["f1"] for _, one in ordered], color=BLUE)
    for place, (_, one) in enumerate(ordered):
        axis.text(one["f1"] + 1, place, f"{one['f1']:.1f}  (n={one['support']:,.0f})", va="center", fontsize=9)
    axis.set(xlabel=f"F1 on {split}, %", xlim=(0, 125), xticks=range(0, 101, 20))
    return figure
