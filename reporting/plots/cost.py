"""Plots of what a strategy costs: quality against speed, memory, and how busy the device was."""

from __future__ import annotations

from typing import Any

from reporting.comparison.summary import Group, Strategy
from reporting.plots import style as drawing
from reporting.plots.style import INK, label, style
from reporting.runs.figures import MIB
from runner.common.run_schema import LOWER_IS_BETTER

WIDE = 10  # times the slowest: from here on the axis of speed is logarithmic


def quality_speed(group: Group) -> Any:
    """A point a strategy, its interval over seeds upright and its range of speeds level, and each seed's quality."""
    figure, axes = drawing.axes(4.2)
    drawn = [each for each in group.strategies if each.quality and each.real_tokens_per_s]
    for strategy in drawn:
        _point(axes, strategy, group)
    speeds = [each.real_tokens_per_s.median for each in drawn if each.real_tokens_per_s]
    axes.margins(x=0.12)
    if max(speeds) > WIDE * min(speeds):
        drawing.logarithmic(axes.xaxis)
    else:
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
    values = [value for each in drawn for value in each.quality_by_seed.values()]
    room = max(0.6 * (max(values) - min(values)), 0.01 * abs(max(values)), 1e-6)
    axes.set_ylim(min(values) - room, max(values) + room)  # an interval of two seeds may be far wider than any figure
    if group.metric in LOWER_IS_BETTER:
        axes.invert_yaxis()  # better is up
    axes.set_xlabel("real tokens per second", color=INK)
    unit = "" if group.metric in LOWER_IS_BETTER else " (%)"
    axes.set_ylabel(f"{group.metric} on {group.split}{unit}", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    drawing.legend(figure, 3)
    return figure


def _point(axes: Any, strategy: Strategy, group: Group) -> None:
    quality, speed = strategy.quality, strategy.real_tokens_per_s
    if quality is None or speed is None:
        return
    colour, marker, _ = style(strategy, group.strategies)
    values = list(strategy.quality_by_seed.values())
    axes.plot([speed.median] * len(values), values, ls="", marker=marker, ms=3.5, color=colour, alpha=0.6)
    axes.plot(speed.median, quality.mean, ls="", marker=marker, ms=9, color=colour, label=label(strategy))
    level = [[speed.median - speed.low], [speed.high - speed.median]] if speed.low < speed.high else None
    upright = None
    if quality.low is not None and quality.high is not None:
        upright = [[quality.mean - quality.low], [quality.high - quality.mean]]
    axes.errorbar(speed.median, quality.mean, upright, level, color=colour, lw=1.2, capsize=3, ls="")


def memory(group: Group) -> Any:
    """A bar a strategy, with the micro-batch that needed most in words."""
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    top = max(each.peak_memory_bytes.high for each in strategies if each.peak_memory_bytes) / MIB
    worded = False
    for row, strategy in enumerate(strategies):
        peak, batch = strategy.peak_memory_bytes, strategy.peak_batch
        if peak is None:
            drawing.say(axes, 0, row, "not recorded")
            continue
        drawing.bar(axes, row, peak.median / MIB, strategy, strategies)
        if peak.n > 1:
            axes.plot([peak.low / MIB, peak.high / MIB], [row, row], color=INK, lw=1.6, marker="|", ms=7)
        words = f"\n{_rows(batch['rows'])} × {batch['width']:,}" if batch and {"rows", "width"} <= batch.keys() else ""
        worded = worded or bool(words)
        drawing.say(axes, peak.high / MIB, row, f"{peak.median / MIB:,.0f}{words}")
    axes.set_xlim(0, top * (1.55 if worded else 1.2))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("peak memory (MiB)", color=INK)
    return figure


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count > 1 else ''}"


def matrix_share(group: Group) -> Any:
    """A bar a strategy, of 100 %."""
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    top = 0.0
    for row, strategy in enumerate(strategies):
        share = strategy.matrix_share
        if share is None:
            drawing.say(axes, 0, row, "not recorded")
            continue
        drawing.bar(axes, row, 100 * share.median, strategy, strategies)
        if share.n > 1:
            axes.plot([100 * share.low, 100 * share.high], [row, row], color=INK, lw=1.6, marker="|", ms=7)
        drawing.say(axes, 100 * share.high, row, f"{100 * share.median:.1f} %")
        top = max(top, 100 * share.high)
    axes.set_xlim(0, (top or 1.0) * 1.2)
    axes.set_xlabel("share of the measured matrix rate (%)", color=INK)
    return figure
