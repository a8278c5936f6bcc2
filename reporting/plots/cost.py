"""Plots of the cost of a strategy: quality against speed, peak memory, and the use of the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.plots import style as drawing
from reporting.plots.style import INK, label, style
from reporting.runs.figures import MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
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
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    highest = 0.0
    has_shapes = False
    for row, strategy in enumerate(strategies):
        peak, batch = strategy.peak_memory_bytes, strategy.peak_batch
        if peak is None:
            drawing.annotate(axes, 0, row, "not recorded")
            continue
        drawing.spread_bar(axes, row, peak, 1 / MIB, strategies)
        shape = f"\n{_rows(batch['rows'])} × {batch['width']:,}" if batch and {"rows", "width"} <= batch.keys() else ""
        has_shapes = has_shapes or bool(shape)
        drawing.annotate(axes, peak.high / MIB, row, f"{peak.median / MIB:,.0f}{shape}")
        highest = max(highest, peak.high / MIB)
    axes.set_xlim(0, highest * (1.55 if has_shapes else 1.2))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("peak memory (MiB)", color=INK)
    return figure


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count > 1 else ''}"


def matrix_share(group: RunGroup) -> Figure:
    """Draw a bar per strategy, in percent of the device's measured rate."""
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    highest = 0.0
    for row, strategy in enumerate(strategies):
        share = strategy.matrix_share
        if share is None:
            drawing.annotate(axes, 0, row, "not recorded")
            continue
        drawing.spread_bar(axes, row, share, 100, strategies)
        drawing.annotate(axes, 100 * share.high, row, f"{100 * share.median:.1f} %")
        highest = max(highest, 100 * share.high)
    axes.set_xlim(0, (highest or 1.0) * 1.2)
    axes.set_xlabel("share of the measured matrix rate (%)", color=INK)
    return figure
