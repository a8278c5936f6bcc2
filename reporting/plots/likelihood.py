"""Where a language model's perplexity comes from: places in a line, and how often train has a token."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def likelihood(metrics: Mapping[str, Any], split: str) -> Figure:
    """Perplexity of tokens by their place in a line and by their occurrences in train; below, how many those are.

    Args:
        metrics: of result.json, with `perplexity`, `by_position` and `by_frequency`.
        split: on which.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    titles = {"place in its line": metrics["by_position"], "occurrences in train": metrics["by_frequency"]}
    points = [_points(table) for table in titles.values()]
    figure = Figure(figsize=(1.8 + 0.55 * sum(map(len, points)), 4.6), layout="constrained")
    widths = [len(some) + 1 for some in points]
    rows = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=[3, 1], width_ratios=widths)
    for title, some, top, bottom in zip(titles, points, *rows, strict=True):
        _perplexities(top, some, titles[title].get("apart", {}), metrics["perplexity"])
        total = sum(one["tokens"] for one in some.values())
        bottom.bar(range(len(some)), [100 * one["tokens"] / total for one in some.values()], color=GREY, width=0.8)
        bottom.set(xlabel=title, xlim=(-0.7, len(some) - 0.3))
        bottom.set_xticks(range(len(some)), some, rotation=45, ha="right", rotation_mode="anchor")
    rows[0][0].set(ylabel=f"perplexity on {split}")
    rows[0][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    rows[0][0].yaxis.set_minor_formatter(NullFormatter())
    rows[1][0].set(ylabel="tokens, %")
    figure.align_xlabels()
    return figure


def _perplexities(axis: Axes, points: Mapping[str, Mapping[str, Any]], apart: Collection[str], mean: float) -> None:
    """A point for each that is finite (JSON has null for others), joined for bins. The grey line: of all tokens."""
    values = [math.nan if one["perplexity"] is None else one["perplexity"] for one in points.values()]
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
    """`20k` for 20,000; a number from 1 on, to 3 digits."""
    for unit, letter in UNITS:
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _points(table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Names of bins, and of strings that are shown apart, and their figures."""
    return {**{_range(one["from"], one["to"]): one for one in table["bins"]}, **table.get("apart", {})}


def _range(first: int, last: int) -> str:
    if first == last:
        return short(first)
    return f"{short(first)}–{short(last + 1 if last == 10 * first - 1 and first >= 1000 else last)}"
