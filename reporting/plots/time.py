"""Plots of time: seconds by phase, and speed by length of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reporting.comparison.summary import RunGroup
from reporting.plots import style as drawing
from reporting.plots.style import INK, PHASES, label, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TIMES = 8  # ratio of slowest to fastest beyond which bars in seconds would be too short to read


def seconds(group: RunGroup) -> Figure:
    """Draw stacked bars of seconds by phase; of shares if one strategy takes far longer than the others."""
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    rows = [[strategy.seconds_by_phase.get(phase, 0.0) for phase in PHASES] for strategy in strategies]
    totals = [sum(row) for row in rows]
    known = [total for total in totals if total > 0]
    as_shares = bool(known) and max(known) > MOST_TIMES * min(known)
    if as_shares:
        rows = [[100 * part / total if total else 0.0 for part in row] for row, total in zip(rows, totals, strict=True)]
    ends = drawing.segments(axes, rows, PHASES, {"optimizer": "optimiser", "startup": "start-up"})
    for row, (end, total) in enumerate(zip(ends, totals, strict=True)):
        text = f"{total:,.3g} s" if total < 100 else f"{total:,.0f} s"
        drawing.annotate(axes, end, row, text if total else "not recorded")
    axes.set_xlim(0, (max(ends) or 1.0) * 1.2)
    if as_shares:
        axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("share of the time (%)" if as_shares else "seconds", color=INK)
    drawing.legend(figure, 4)
    return figure


def by_length(group: RunGroup) -> Figure:
    """Draw a line per strategy on two logarithmic axes."""
    figure, axes = drawing.axes(3.6)
    for strategy in group.strategies:
        if not strategy.by_length:
            continue
        colour, marker, line = style(strategy, group.strategies)
        lengths = [rate.longest for rate in strategy.by_length]
        speeds = [rate.real_tokens_per_s for rate in strategy.by_length]
        axes.plot(lengths, speeds, line, color=colour, marker=marker, ms=5, label=label(strategy))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    drawing.logarithmic(axes, "y")
    axes.set_xlabel("longest row of the update, at most (tokens)", color=INK)
    axes.set_ylabel("real tokens per second", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    drawing.legend(figure, 3)
    return figure
