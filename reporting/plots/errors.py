"""Plots of errors: kinds of span errors by type, and the calibration of predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reporting.plots.style import BLUE, GREY, new_figure
from runner.common.records import Calibration, SpanErrors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "right": "#009E73",
    "boundary": "#56B4E9",
    "type": "#E69F00",
    "both": "#CC79A7",
    "missed": "#999999",
    "spurious": "#D55E00",
}


def error_kinds(errors: SpanErrors, split: str) -> Figure:
    """Draw the spans of each type, the most frequent on top: gold spans by outcome, then spurious predictions."""
    per_type = errors["per_type"]
    names = sorted(per_type, key=lambda name: sum(per_type[name].values()))
    figure = new_figure(8, 0.35 * len(names) + 1.8)
    axis = figure.subplots()
    left = [0] * len(names)
    for kind, colour in KINDS.items():
        counts = [per_type[name][kind] for name in names]
        label = f"{kind} {errors['counts'][kind]:,}"
        hatch = "//" if kind == "spurious" else None  # predictions that match no gold span
        axis.barh(names, counts, left=left, color=colour, label=label, hatch=hatch, edgecolor="white", linewidth=0.5)
        left = [start + count for start, count in zip(left, counts, strict=True)]
    axis.set(xlabel=f"spans of {split}: gold spans, then spurious predictions (hatched)")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9, columnspacing=1, handlelength=1.2)
    return figure


def reliability(tables: Mapping[str, Calibration], split: str) -> Figure:
    """Draw accuracy by predicted probability; on the diagonal predictions are as accurate as their probability says.

    Args:
        tables: name of the predictions (`all tokens`, ...) -> `ece` and `bins` of result.json.
        split: the name of the split, for titles.
    """
    from matplotlib.ticker import NullFormatter

    figure = new_figure(4 * len(tables), 4.4)
    panels = figure.subplots(2, len(tables), squeeze=False, sharex=True, height_ratios=[3, 1])
    for place, (name, table) in enumerate(tables.items()):
        top, bottom = panels[0][place], panels[1][place]
        bins = table["bins"]
        middles = [50 * (row["from"] + row["to"]) for row in bins]
        top.plot([0, 100], [0, 100], color=GREY, linewidth=1)
        top.bar(middles, [row["accuracy"] for row in bins], width=9, color=BLUE, alpha=0.35)
        points = [(row["confidence"], row["accuracy"]) for row in bins]
        top.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, clip_on=False)
        top.set(xlim=(0, 100), ylim=(0, 102), title=f"{name} of {split}, ECE {table['ece']:.1f} %")
        bottom.bar(middles, [row["count"] for row in bins], width=9, color=GREY)
        bottom.set(yscale="log", xlabel="predicted probability, %")
        bottom.yaxis.set_major_formatter("{x:,.0f}")
        bottom.yaxis.set_minor_formatter(NullFormatter())
    panels[0][0].set(ylabel="accuracy, %")
    panels[1][0].set(ylabel="predictions")
    return figure
