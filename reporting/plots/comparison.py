"""The plots of one group, as SVG and if requested as PNG."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.plots import cost
from reporting.plots import style as drawing
from reporting.plots.style import INK, SETTINGS, Plot, label, style
from reporting.runs.run import Evaluation
from runner.common.records import PADDING_CAUSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAUSES = {"spread": "#4477AA", "last_batch": "#EE8866", "rounding": "#BBBB55"}
CAUSE_NAMES = {"spread": "lengths differ", "last_batch": "last batch"}


def plots(group: RunGroup, with_png: bool) -> list[Plot]:
    """Return the plots that this group has figures for."""
    import matplotlib  # takes half a second, and is needed only here

    with matplotlib.rc_context(SETTINGS):
        return [
            drawing.plot(name, caption.format(metric=group.metric, split=group.split), draw(group), with_png)
            for name, has_figures, caption, draw in PLOTS
            if any(has_figures(strategy) for strategy in group.strategies)
        ]


def _quality(group: RunGroup) -> Figure:
    """Draw quality on valid over training time, a curve per strategy with a band from worst to best seed."""
    figure, axes = drawing.axes(4.2)
    for strategy in group.strategies:
        colour, marker, line = style(strategy, group.strategies)
        curves = [points for points in strategy.evaluations.values() if points]
        if not curves:
            continue
        mean = mean_curve(curves)
        if len(curves) > 1:
            qualities = [[point.quality for point in points] for points in zip(*curves, strict=False)]
            seconds = [x for x, _ in mean]
            axes.fill_between(
                seconds, list(map(min, qualities)), list(map(max, qualities)), color=colour, alpha=0.15, lw=0
            )
        every = max(1, len(mean) // 12)
        axes.plot(
            *zip(*mean, strict=True), line, color=colour, marker=marker, ms=5, markevery=every, label=label(strategy)
        )
    if group.target.quality is not None:
        axes.axhline(group.target.quality, color=INK, lw=0.8, ls=(0, (4, 4)), label="target")
    if _spans_decades([p for strategy in group.strategies for points in strategy.evaluations.values() for p in points]):
        drawing.logarithmic(axes, "x")
    unit = f" ({group.unit})" if group.unit else ""
    axes.set_xlabel("training time (s)", color=INK)
    axes.set_ylabel(f"{group.metric} on valid{unit}", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    drawing.legend(figure, 2)
    return figure


def mean_curve(curves: list[tuple[Evaluation, ...]]) -> list[tuple[float, float]]:
    """Return (seconds, quality) of the k-th evaluation, averaged over seeds, up to the shortest curve."""
    n = len(curves)
    return [
        (sum(point.seconds for point in points) / n, sum(point.quality for point in points) / n)
        for points in zip(*curves, strict=False)
    ]


def _spans_decades(points: list[Evaluation]) -> bool:
    """Return True if the fastest curve would be squeezed against the left edge of a linear axis."""
    seconds = sorted(point.seconds for point in points if point.seconds > 0)
    return bool(seconds) and seconds[-1] > 50 * seconds[0] and len(seconds) > 1


def _padding(group: RunGroup) -> Figure:
    """Draw padding of tokens by cause, and in a second panel, as its unit differs, padding of the words' characters."""
    strategies = group.strategies
    characters = any(strategy.character_padding for strategy in strategies)
    figure, panels = drawing.bars(strategies, 2 if characters else 1)
    rows = [[100 * strategy.padding_by_cause.get(cause, 0.0) for cause in PADDING_CAUSES] for strategy in strategies]
    ends = drawing.segments(panels[0], rows, {cause: CAUSES[cause] for cause in PADDING_CAUSES}, CAUSE_NAMES)
    recorded = [bool(strategy.padding_by_cause) for strategy in strategies]
    _annotate_shares(panels[0], ends, recorded, "padding (% of positions in memory)")
    if characters:
        shares = [100 * (strategy.character_padding or 0.0) for strategy in strategies]
        panels[1].barh(range(len(strategies)), shares, drawing.BAR, color="#AA77AA", label="in words' characters")
        recorded = [strategy.character_padding is not None for strategy in strategies]
        _annotate_shares(panels[1], shares, recorded, "padding (% of characters in memory)")
    drawing.legend(figure, 2 if characters else len(CAUSES))
    return figure


def _annotate_shares(axes: Axes, ends: list[float], recorded: list[bool], xlabel: str) -> None:
    for row, end in enumerate(ends):
        drawing.annotate(axes, end, row, f"{end:.1f} %" if recorded[row] else "not recorded")
    axes.set_xlim(0, (max(ends) or 1.0) * 1.2)
    axes.set_xlabel(xlabel, color=INK)


# name, test whether a strategy has figures to draw, caption, function that draws the plot
PLOTS: tuple[tuple[str, Callable[[StrategySummary], object], str, Callable[[RunGroup], Figure]], ...] = (
    (
        "quality",
        lambda strategy: any(strategy.evaluations.values()),
        "{metric} on valid over seconds of training; line: mean, band: range over seeds.",
        _quality,
    ),
    (
        "throughput",
        lambda strategy: strategy.real_tokens_per_s,
        "Real tokens (padding not counted) trained on per second; bar: median, line: range over runs.",
        cost.throughput,
    ),
    (
        "quality_speed",
        lambda strategy: strategy.quality and strategy.real_tokens_per_s,
        "{metric} on {split} against speed: better is up and right. Large points: mean and median, "
        "with the interval over seeds and the range of speeds; small points: single seeds.",
        cost.quality_speed,
    ),
    (
        "seconds",
        lambda strategy: len(strategy.seconds_by_phase) > 1,
        "Time by phase, mean over runs; the number at the end of each bar is the total in seconds.",
        cost.seconds,
    ),
    (
        "length",
        lambda strategy: len(strategy.by_length) > 1,
        "Speed of updates by their longest row; each class is twice as long as the one before.",
        cost.by_length,
    ),
    (
        "padding",
        lambda strategy: strategy.padding_by_cause,
        "Padding as a share of all positions in memory, by what caused it; mean over runs.",
        _padding,
    ),
    (
        "memory",
        lambda strategy: strategy.peak_memory_bytes,
        "Peak memory, median and range over runs, with the shape of the micro-batch that needed most, if recorded.",
        cost.memory,
    ),
    (
        "arithmetic",
        lambda strategy: strategy.matrix_share,
        "Arithmetic rate achieved in training, as a share of the rate of matrix products measured on the device; "
        "work on padding counts, so more is not always faster.",
        cost.matrix_share,
    ),
)
