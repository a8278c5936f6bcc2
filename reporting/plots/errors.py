"""Plots of what went wrong: kinds of span errors by type, and how far probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
BLUE, GREY = "#0072B2", "#BBBBBB"


def error_kinds(errors: Mapping[str, Any], split: str) -> Figure:
    """Spans of each type, the most frequent on top: gold ones by what became of them, then, apart, spurious ones."""
    from matplotlib.figure import Figure

    per_type = errors["per_type"]
    names = sorted(per_type, key=lambda name: sum(per_type[name].values()))
    figure = Figure(figsize=(8, 0.35 * len(names) + 1.8), layout="constrained")
    axis = figure.subplots()
    left = [0] * len(names)
    for kind, colour in KINDS.items():
        counts = [per_type[name][kind] for name in names]
        label = f"{kind} {errors['counts'][kind]:,}"
        hatch = "//" if kind == "spurious" else None  # of predictions that no gold span stands for
        axis.barh(names, counts, left=left, color=colour, label=label, hatch=hatch, edgecolor="white", linewidth=0.5)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axis.set(xlabel=f"spans of {split}: gold ones, then spurious ones (hatched)")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9, columnspacing=1, handlelength=1.2)
    return figure


def reliability(tables: Mapping[str, Mapping[str, Any]], split: str) -> Figure:
    """Share of right answers by their probability; on the diagonal probabilities are what they say.

    Args:
        tables: what the answers are (`all tokens`, ...) -> `ece` and `bins` of result.json.
        split: on which.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(4 * len(tables), 4.4), layout="constrained")
    rows = figure.subplots(2, len(tables), squeeze=False, sharex=True, height_ratios=[3, 1])
    for place, (name, table) in enumerate(tables.items()):
        top, bottom = rows[0][place], rows[1][place]
        middle = [50 * (one["from"] + one["to"]) for one in table["bins"]]
        top.plot([0, 100], [0, 100], color=GREY, linewidth=1)
        top.bar(middle, [one["accuracy"] for one in table["bins"]], width=9, color=BLUE, alpha=0.35)
        points = [(one["confidence"], one["accuracy"]) for one in table["bins"]]
        top.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, clip_on=False)
        top.set(xlim=(0, 100), ylim=(0, 102), title=f"{name} of {split}, ECE {table['ece']:.1f} %")
        bottom.bar(middle, [one["count"] for one in table["bins"]], width=9, color=GREY)
        bottom.set(yscale="log", xlabel="probability of the answer, %")
        bottom.yaxis.set_major_formatter("{x:,.0f}")
        bottom.yaxis.set_minor_formatter(NullFormatter())
    rows[0][0].set(ylabel="right, %")
    rows[1][0].set(ylabel="answers")
    return figure
