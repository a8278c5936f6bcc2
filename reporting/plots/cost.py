"""Plots of the cost of a strategy: quality against speed, time, peak memory, and the use of the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.plots import style as drawing
from reporting.plots.style import INK, PHASES, label, style
from reporting.runs.figures import MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TIMES = 8  # ratio of slowest to fastest beyond which bars in seconds would be too short to read
WIDE = 10  # from this ratio of fastest to slowest on, the axis of speed is logarithmic


def quality_speed(group: RunGroup) -> Figure:
    """Draw a point per strategy, with its interval over seeds (vertical), its range of speeds, and single seeds."""
    figure, axes = drawing.axes(4.2)
    drawn = [strategy for strategy in group.strategies if strategy.quality and strategy.real_tokens_per_s]
    for strategy in drawn:
        _point(axes, strategy, group)
    speeds = [strategy.real_tokens_per_s.median for strategy in drawn if strategy.real_tokens_per_s]
    axes.margins(x=0.12)
    if max(speeds) > WIDE * min(speeds):
        drawing.logarithmic(axes, "x")
    else:
        drawing.plain_numbers(axes)
    values = [value for strategy in drawn for value in strategy.quality_by_seed.values()]
    room = max(0.6 * (max(values) - min(values)), 0.01 * abs(max(values)), 1e-6)
    # The limits follow the points: the interval of two seeds may be far wider than any difference between them.
    axes.set_ylim(min(values) - room, max(values) + room)
    if not group.higher_is_better:
        axes.invert_yaxis()  # better is up
    axes.set_xlabel("real tokens per second", color=INK)
    unit = f" ({group.unit})" if group.unit else ""
    axes.set_ylabel(f"{group.metric} on {group.split}{unit}", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    drawing.legend(figure, 3)
    return figure


def _point(axes: Axes, strategy: StrategySummary, group: RunGroup) -> None:
    quality, speed = strategy.quality, strategy.real_tokens_per_s
    if quality is None or speed is None:
        return
    colour, marker, _ = style(strategy, group.strategies)
    values = list(strategy.quality_by_seed.values())
    axes.plot([speed.median] * len(values), values, ls="", marker=marker, ms=3.5, color=colour, alpha=0.6)
    axes.plot(speed.median, quality.mean, ls="", marker=marker, ms=9, color=colour, label=label(strategy))
    horizontal = [[speed.median - speed.low], [speed.high - speed.median]] if speed.low < speed.high else None
    vertical = None
    if quality.low is not None and quality.high is not None:
        vertical = [[quality.mean - quality.low], [quality.high - quality.mean]]
    axes.errorbar(speed.median, quality.mean, vertical, horizontal, color=colour, lw=1.2, capsize=3, ls="")


def memory(group: RunGroup) -> Figure:
    """Draw a bar per strategy, with the shape of the micro-batch that needed most memory."""
    figure, axes = drawing.spread_bars(
        group.strategies,
        lambda strategy: strategy.peak_memory_bytes,
        1 / MIB,
        lambda strategy, median: f"{median:,.0f}{_shape(strategy)}",
        room=1.55 if any(_shape(strategy) for strategy in group.strategies if strategy.peak_memory_bytes) else 1.2,
    )
    drawing.plain_numbers(axes)
    axes.set_xlabel("peak memory (MiB)", color=INK)
    return figure


def _shape(strategy: StrategySummary) -> str:
    batch = strategy.peak_batch
    if not batch or not {"rows", "width"} <= batch.keys():
        return ""
    return f"\n{batch['rows']:,} row{'s' if batch['rows'] > 1 else ''} × {batch['width']:,}"


def matrix_share(group: RunGroup) -> Figure:
    """Draw a bar per strategy, in percent of the device's measured rate."""
    figure, axes = drawing.spread_bars(
        group.strategies, lambda strategy: strategy.matrix_share, 100, lambda _, median: f"{median:.1f} %"
    )
    axes.set_xlabel("share of the measured matrix rate (%)", color=INK)
    return figure


def throughput(group: RunGroup) -> Figure:
    """Draw a bar per strategy, in real tokens per second."""
    figure, axes = drawing.spread_bars(
        group.strategies, lambda strategy: strategy.real_tokens_per_s, 1, lambda _, median: f"{median:,.0f}", missing=""
    )
    drawing.plain_numbers(axes)
    axes.set_xlabel("real tokens per second", color=INK)
    return figure


def seconds(group: RunGroup) -> Figure:
    """Draw stacked bars of seconds by phase; of shares if one strategy takes far longer than the others."""
    strategies = group.strategies
    figure, (axes,) = drawing.bars(strategies)
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
