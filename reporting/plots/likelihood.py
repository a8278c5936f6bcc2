"""A plot of a language model's perplexity by position in a line and by frequency of tokens in the training set."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from reporting.plots.style import BLUE, GREY, ORANGE, new_figure
from runner.common.records import Likelihood, LikelihoodTable, SplitTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def likelihood(metrics: SplitTables, split: str) -> Figure:
    """Draw perplexity by position in a line and by occurrences in the training set, and below it the share of tokens.

    Args:
        metrics: metrics of result.json with `perplexity`, `by_position` and `by_frequency`.
        split: the name of the split, for the label.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    tables = {
        "position in the line": metrics["by_position"],
        "occurrences in the training set": metrics["by_frequency"],
    }
    points = [_points(table) for table in tables.values()]
    figure = new_figure(1.8 + 0.55 * sum(map(len, points)), 4.6)
    widths = [len(own) + 1 for own in points]
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=[3, 1], width_ratios=widths)
    for title, own, top, bottom in zip(tables, points, *panels, strict=True):
        _perplexities(top, own, tables[title].get("apart", {}), metrics["perplexity"])
        total = sum(point["tokens"] for point in own.values())
        bottom.bar(range(len(own)), [100 * point["tokens"] / total for point in own.values()], color=GREY, width=0.8)
        bottom.set(xlabel=title, xlim=(-0.7, len(own) - 0.3))
        bottom.set_xticks(range(len(own)), own, rotation=45, ha="right", rotation_mode="anchor")
    panels[0][0].set(ylabel=f"perplexity on {split}")
    panels[0][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    panels[0][0].yaxis.set_minor_formatter(NullFormatter())
    panels[1][0].set(ylabel="tokens, %")
    figure.align_xlabels()
    return figure


def _perplexities(axis: Axes, points: Mapping[str, Likelihood], apart: Collection[str], mean: float) -> None:
    """Draw a point for each finite perplexity, bins joined; a grey line marks the perplexity of all tokens."""
    values = [math.nan if point["perplexity"] is None else point["perplexity"] for point in points.values()]
    bins = [place for place, name in enumerate(points) if name not in apart]
    axis.axhline(mean, color=GREY, linewidth=1)
    axis.plot(bins, [values[place] for place in bins], color=BLUE, marker="o", markersize=5)
    others = [place for place in range(len(points)) if place not in bins]
    axis.plot(others, [values[place] for place in others], color=ORANGE, marker="D", markersize=5, linestyle="none")
    for place, value in enumerate(values):
        if math.isfinite(value):
            axis.annotate(short(value), (place, value), xytext=(1, 6), textcoords="offset points", fontsize=9)
    axis.set(yscale="log")
    axis.margins(y=0.15)


def short(value: float) -> str:
    """Return `20k` for 20,000: a number of 1 or more to 3 digits."""
    for unit, letter in UNITS:
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _points(table: LikelihoodTable) -> dict[str, Likelihood]:
    """Return the figures of bins and of separately listed strings, by name."""
    return {**{_range(row["from"], row["to"]): row for row in table["bins"]}, **table.get("apart", {})}


def _range(first: int, last: int) -> str:
    """Return `1–9`, or from 1,000 on `1k–10k` for 1000 to 9999."""
    if first == last:
        return short(first)
    return f"{short(first)}–{short(last + 1 if last == 10 * first - 1 and first >= 1000 else last)}"
