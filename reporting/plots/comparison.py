"""The plots of one group. Each as SVG, and as PNG where asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reporting.comparison.summary import Group, Strategy
from reporting.plots import cost, time
from reporting.plots import style as drawing
from reporting.plots.style import INK, SETTINGS, Plot, label, style
from reporting.runs.run import Evaluation
from runner.common.run_schema import LOWER_IS_BETTER, PADDING_CAUSES

CAUSES = {"spread": "#4477AA", "last_batch": "#EE8866", "rounding": "#BBBB55"}
CAUSE_NAMES = {"spread": "lengths differ", "last_batch": "last batch"}


def plots(group: Group, with_png: bool) -> list[Plot]:
    """The plots that this group has figures for."""
    import matplotlib  # half a second, needed here alone

    with matplotlib.rc_context(SETTINGS):
        return [
            drawing.plot(name, caption.format(metric=group.metric, split=group.split), draw(group), with_png)
            for name, has, caption, draw in PLOTS
            if any(has(strategy) for strategy in group.strategies)
        ]


def _quality(group: Group) -> Any:
    figure, axes = drawing.axes(4.2)
    for strategy in group.strategies:
        colour, marker, line = style(strategy, group.strategies)
        curves = [points for points in strategy.evaluations.values() if points]
        if not curves:
            continue
        mean = mean_curve(curves)
        if len(curves) > 1:
            at = list(zip(*curves, strict=False))
            low, high = [min(p.quality for p in each) for each in at], [max(p.quality for p in each) for each in at]
            axes.fill_between([x for x, _ in mean], low, high, color=colour, alpha=0.15, lw=0)
        every = max(1, len(mean) // 12)
        axes.plot(
            *zip(*mean, strict=True), line, color=colour, marker=marker, ms=5, markevery=every, label=label(strategy)
        )
    if group.target.quality is not None:
        axes.axhline(group.target.quality, color=INK, lw=0.8, ls=(0, (4, 4)), label="target")
    if _spans_decades([s for each in group.strategies for points in each.evaluations.values() for s in points]):
        drawing.logarithmic(axes.xaxis)
    unit = "" if group.metric in LOWER_IS_BETTER else " (%)"
    axes.set_xlabel("training time (s)", color=INK)
    axes.set_ylabel(f"{group.metric} on valid{unit}", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    drawing.legend(figure, 2)
    return figure


def mean_curve(curves: list[tuple[Evaluation, ...]]) -> list[tuple[float, float]]:
    """(seconds, quality) of the k-th evaluation, mean over the seeds, as far as all seeds went."""
    at = list(zip(*curves, strict=False))
    n = len(curves)
    return [(sum(p.seconds for p in each) / n, sum(p.quality for p in each) / n) for each in at]


def _spans_decades(points: list[Evaluation]) -> bool:
    """Whether the fastest would be a smear at the left edge on a linear axis."""
    seconds = sorted(point.seconds for point in points if point.seconds > 0)
    return bool(seconds) and seconds[-1] > 50 * seconds[0] and len(seconds) > 1


def _throughput(group: Group) -> Any:
    strategies = group.strategies
    figure, axes = drawing.bars(strategies)
    top = max(each.real_tokens_per_s.high for each in strategies if each.real_tokens_per_s)
    for row, strategy in enumerate(strategies):
        speed = strategy.real_tokens_per_s
        if speed is None:
            continue
        drawing.bar(axes, row, speed.median, strategy, strategies)
        if speed.n > 1:
            axes.plot([speed.low, speed.high], [row, row], color=INK, lw=1.6, marker="|", ms=7)
        drawing.say(axes, speed.high, row, f"{speed.median:,.0f}")
    axes.set_xlim(0, top * 1.2)  # room for the figures
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("real tokens per second", color=INK)
    return figure


def _padding(group: Group) -> Any:
    """By cause, and in a panel of its own, since its unit is another, that of the words' characters."""
    strategies = group.strategies
    characters = any(strategy.character_padding for strategy in strategies)
    figure, panels = drawing.stacked([drawing.height(strategies)] * (2 if characters else 1))
    rows = [[100 * each.padding_by_cause.get(cause, 0.0) for cause in PADDING_CAUSES] for each in strategies]
    colours = {cause: CAUSES[cause] for cause in PADDING_CAUSES}
    ends = drawing.segments(panels[0], rows, colours, CAUSE_NAMES)
    known = [bool(strategy.padding_by_cause) for strategy in strategies]
    _finish_padding(panels[0], strategies, ends, known, "padding (% of positions in memory)")
    if characters:
        shares = [100 * (strategy.character_padding or 0.0) for strategy in strategies]
        panels[1].barh(range(len(strategies)), shares, drawing.BAR, color="#AA77AA", label="in words' characters")
        known = [strategy.character_padding is not None for strategy in strategies]
        _finish_padding(panels[1], strategies, shares, known, "padding (% of characters in memory)")
    drawing.legend(figure, 2 if characters else len(CAUSES))
    return figure


def _finish_padding(axes: Any, strategies: list[Strategy], ends: list[float], known: list[bool], words: str) -> None:
    drawing.rows_of(axes, strategies)
    for row, end in enumerate(ends):
        drawing.say(axes, end, row, f"{end:.1f} %" if known[row] else "not recorded")
    axes.set_xlim(0, (max(ends) or 1.0) * 1.2)
    axes.set_xlabel(words, color=INK)


# name, whether there is something to draw of a strategy, caption, how
PLOTS: tuple[tuple[str, Callable[[Strategy], object], str, Callable[[Group], Any]], ...] = (
    (
        "quality",
        lambda each: any(each.evaluations.values()),
        "{metric} on valid over seconds of training; line: mean, band: range over seeds.",
        _quality,
    ),
    (
        "throughput",
        lambda each: each.real_tokens_per_s,
        "Real tokens (padding not counted) trained on per second; bar: median, line: range over runs.",
        _throughput,
    ),
    (
        "quality_speed",
        lambda each: each.quality and each.real_tokens_per_s,
        "{metric} on {split} against speed: better is up and right. Large: mean and median, "
        "with the interval over seeds and the range of speeds; small: each seed.",
        cost.quality_speed,
    ),
    (
        "seconds",
        lambda each: len(each.seconds_by_phase) > 1,
        "Where the time went, mean over runs; at the end of each bar the seconds of all of it.",
        time.seconds,
    ),
    (
        "length",
        lambda each: len(each.by_length) > 1,
        "Speed of updates by their longest row, in classes of twice the length.",
        time.by_length,
    ),
    (
        "padding",
        lambda each: each.padding_by_cause,
        "Padding as a share of all positions in memory, by what caused it; mean over runs.",
        _padding,
    ),
    (
        "memory",
        lambda each: each.peak_memory_bytes,
        "Peak memory, median and range over runs, and the micro-batch that set it where it is known.",
        cost.memory,
    ),
    (
        "arithmetic",
        lambda each: each.matrix_share,
        "Arithmetic achieved in training, as a share of the rate of matrix products that was measured on the device; "
        "work on padding counts, so that more is not always faster.",
        cost.matrix_share,
    ),
)
