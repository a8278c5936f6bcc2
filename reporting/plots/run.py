"""Plots of one finished run in its folder: curves, seconds by phase, scores by class, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting.plots.errors import error_kinds, reliability
from reporting.plots.likelihood import likelihood
from reporting.plots.style import BLUE, DPI, ORANGE, PHASES, SETTINGS
from runner.common import run_schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 40  # with more, a confusion matrix cannot be read
CALIBRATIONS = {"calibration": "all predictions", "calibration_in_spans": "predictions in spans"}


class RunPlots:
    """The drawing of a run's plots into its folder `plots/`."""

    def draw(self, folder: Path) -> list[Path]:
        """Write a PNG for each figure that the run has, and return their paths. The run must have a result.json."""
        import matplotlib  # takes half a second, and is needed only here

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
    """Return the records of metrics.jsonl in order."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures(result: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Figure]:
    """Return the figures by name, those for which the result has data."""
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
    """Draw training loss and quality on valid over updates."""
    from matplotlib.figure import Figure

    quality = result["quality"]["metric"]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, name, colour in ((left, "train/loss", BLUE), (right, f"valid/{quality}", ORANGE)):
        points = [
            (record["step"], record["metrics"][name]) for record in records if record["metrics"].get(name) is not None
        ]
        axis.plot(*zip(*points, strict=True), color=colour, marker="o" if len(points) < 30 else None, markersize=4)
        axis.set(xlabel="updates", ylabel=name.replace("/", " "))
        axis.grid(alpha=0.3)
    figure.suptitle(result["name"], fontsize=11)
    return figure


def seconds(result: Mapping[str, Any]) -> Figure:
    """Draw seconds by phase as one stacked bar."""
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
    """Draw the share of each gold label's examples (rows) by predicted label (columns), with counts."""
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
    """Draw F1 of each class or span type with its support, the most frequent on top."""
    from matplotlib.figure import Figure

    ordered = sorted(scores.items(), key=lambda item: item[1]["support"])
    figure = Figure(figsize=(6, 0.3 * len(ordered) + 1.1), layout="constrained")
    axis = figure.subplots()
    axis.barh([name for name, _ in ordered], [score["f1"] for _, score in ordered], color=BLUE)
    for place, (_, score) in enumerate(ordered):
        axis.text(score["f1"] + 1, place, f"{score['f1']:.1f}  (n={score['support']:,.0f})", va="center", fontsize=9)
    axis.set(xlabel=f"F1 on {split}, %", xlim=(0, 125), xticks=range(0, 101, 20))
    return figure
