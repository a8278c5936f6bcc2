"""The plots of one group, as SVG and if requested as PNG: quality, speed, time, padding, memory, use of the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.plots import style as drawing
from reporting.plots.style import INK, PHASES, SETTINGS, Plot, label, style
from reporting.runs.measures import MIB
from reporting.runs.run import Evaluation
from runner.common.errors import shortened
from runner.common.records import PADDING_CAUSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
CAUSES = {"spread": "#4477AA", "last_batch": "#EE8866", "rounding": "#BBBB55"}
INNER = {"pieces": "#66AAAA", "characters": "#AA77AA"}  # colours of padding within words
CAUSE_NAMES = {"spread": "lengths differ", "last_batch": "last batch"}
MOST_TIMES = 8  # ratio of slowest to fastest beyond which bars in seconds would be too short to read
WIDE = 10  # from this ratio of fastest to slowest on, the axis of speed is logarithmic


def plots(group: RunGroup, with_png: bool) -> list[Plot]:
    """Return the plots that this group has figures for; one that cannot be drawn is a warning."""
    import matplotlib  # takes half a second, and is needed only here

    drawn: list[Plot] = []
    with matplotlib.rc_context(SETTINGS):
        for name, (has_figures, draw) in PLOTS.items():
            if not any(has_figures(strategy) for strategy in group.strategies):
                continue
            caption = CAPTIONS[name].format(metric=shortened(group.metric), split=group.split)
            try:
                figure = draw(group)
                drawing.entitle(figure, shortened(group.title), INK)
                drawn.append(drawing.plot(name, caption, figure, with_png))
            except Exception as error:  # whatever matplotlib raises for numbers that it cannot scale, such as 1e308
                log.warning(
                    "warning: %s: the plot '%s' was not drawn: %s", group.title, name, shortened(str(error), 200)
                )
    return drawn


def _quality(group: RunGroup) -> Figure:
    """Draw quality on valid over training time, a curve per strategy with a band from worst to best seed."""
    figure, axes = drawing.axes(4.2)
    for strategy in group.strategies:
        colour, marker, line = style(strategy, group.strategies)
        curves = [points for points in strategy.evaluations.values() if points]
        if not curves:
            continue
        seconds, means = zip(*mean_curve(curves), strict=True)
        if len(curves) > 1:
            qualities = [[point.quality for point in points] for points in zip(*curves, strict=False)]
            worst, best = list(map(min, qualities)), list(map(max, qualities))
            axes.fill_between(seconds, worst, best, color=colour, alpha=0.15, lw=0)
        every, name = max(1, len(means) // 12), label(strategy)
        axes.plot(seconds, means, line, color=colour, marker=marker, ms=5, markevery=every, label=name)
    if group.target.quality is not None:
        axes.axhline(group.target.quality, color=INK, lw=0.8, ls=(0, (4, 4)), label="target")
    evaluations = chain.from_iterable(chain(*(strategy.evaluations.values() for strategy in group.strategies)))
    times = [evaluation.seconds for evaluation in evaluations if evaluation.seconds > 0]
    if times and max(times) > 50 * min(times):  # else the fastest curve would be squeezed against the left edge
        drawing.logarithmic(axes, "x")
    if group.unit == "%":
        drawing.end_at_100(axes)
    return drawing.labelled(figure, axes, "training time (s)", _metric(group, "valid"), 2)


def mean_curve(curves: list[tuple[Evaluation, ...]]) -> list[tuple[float, float]]:
    """Return (seconds, quality) of the k-th evaluation, averaged over seeds, up to the shortest curve."""
    n = len(curves)
    return [
        (sum(point.seconds for point in points) / n, sum(point.quality for point in points) / n)
        for points in zip(*curves, strict=False)
    ]


def _metric(group: RunGroup, split: str) -> str:
    unit = f" ({shortened(group.unit)})" if group.unit else ""
    return f"{shortened(group.metric)} on {split}{unit}"


def quality_speed(group: RunGroup) -> Figure:
    """Draw a point per strategy, with its interval over seeds (vertical), its range of speeds, and single seeds."""
    figure, axes = drawing.axes(4.2)
    values, speeds = [], []
    for strategy in group.strategies:
        quality, speed = strategy.quality, strategy.real_tokens_per_s
        if quality is None or speed is None:
            continue
        colour, marker, _ = style(strategy, group.strategies)
        own = list(strategy.quality_by_seed.values())
        values += own
        speeds.append(speed.median)
        axes.plot([speed.median] * len(own), own, ls="", marker=marker, ms=3.5, color=colour, alpha=0.6)
        axes.plot(speed.median, quality.mean, ls="", marker=marker, ms=9, color=colour, label=label(strategy))
        horizontal = [[speed.median - speed.low], [speed.high - speed.median]] if speed.low < speed.high else None
        vertical = None
        if quality.low is not None and quality.high is not None:
            vertical = [[quality.mean - quality.low], [quality.high - quality.mean]]
        axes.errorbar(speed.median, quality.mean, vertical, horizontal, color=colour, lw=1.2, capsize=3, ls="")
    axes.margins(x=0.12)
    if max(speeds) > WIDE * min(speeds):
        drawing.logarithmic(axes, "x")
    else:
        drawing.plain_numbers(axes)
    room = max(0.6 * (max(values) - min(values)), 0.01 * abs(max(values)), 1e-6)
    # The limits follow the points: the interval of two seeds may be far wider than any difference between them.
    axes.set_ylim(min(values) - room, max(values) + room)
    if group.unit == "%":
        drawing.end_at_100(axes)
    if not group.higher_is_better:
        axes.invert_yaxis()  # better is up
    return drawing.labelled(figure, axes, "real tokens per second", _metric(group, group.split), 3)


def _throughput(group: RunGroup) -> Figure:
    figure, axes = drawing.spread_bars(group.strategies, lambda strategy: strategy.real_tokens_per_s, missing="")
    drawing.plain_numbers(axes)
    axes.set_xlabel("real tokens per second", color=INK)
    return figure


def _memory(group: RunGroup) -> Figure:
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


def _matrix_share(group: RunGroup) -> Figure:
    figure, axes = drawing.spread_bars(
        group.strategies, lambda strategy: strategy.matrix_share, 100, lambda _, median: f"{median:.1f} %"
    )
    axes.set_xlabel("share of the measured matrix rate (%)", color=INK)
    return figure


def _seconds(group: RunGroup) -> Figure:
    """Draw stacked bars of seconds by phase; of shares if one strategy takes far longer than the others."""
    figure, (axes,) = drawing.bars(group.strategies)
    rows = [[strategy.seconds_by_phase.get(phase, 0.0) for phase in PHASES] for strategy in group.strategies]
    totals = [sum(row) for row in rows]
    known = [total for total in totals if total > 0]
    as_shares = bool(known) and max(known) > MOST_TIMES * min(known)
    if as_shares:
        rows = [[100 * part / total if total else 0.0 for part in row] for row, total in zip(rows, totals, strict=True)]
    ends = drawing.segments(axes, rows, PHASES, {"optimizer": "optimiser", "startup": "start-up"})
    texts = [f"{total:,.3g} s" if total < 100 else f"{total:,.0f} s" for total in totals]
    drawing.annotate_ends(axes, ends, [text if total else None for text, total in zip(texts, totals, strict=True)])
    if as_shares:
        axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("share of the time (%)" if as_shares else "seconds", color=INK)
    drawing.legend(figure, 4)
    return figure


def _by_length(group: RunGroup) -> Figure:
    """Draw a line per strategy on two logarithmic axes."""
    figure, axes = drawing.axes(3.6)
    for strategy in group.strategies:
        if strategy.by_length:
            colour, marker, line = style(strategy, group.strategies)
            lengths = [rate.longest for rate in strategy.by_length]
            speeds = [rate.real_tokens_per_s for rate in strategy.by_length]
            axes.plot(lengths, speeds, line, color=colour, marker=marker, ms=5, label=label(strategy))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    drawing.logarithmic(axes, "y")
    xlabel = "longest row of the update, at most (tokens)"
    return drawing.labelled(figure, axes, xlabel, "real tokens per second", 3)


def _padding(group: RunGroup) -> Figure:
    """Draw padding of tokens by cause, and in panels of their own, since units differ, of pieces and characters."""
    strategies = group.strategies
    other_units = {
        "pieces": [strategy.piece_padding for strategy in strategies],
        "characters": [strategy.character_padding for strategy in strategies],
    }
    shown = {unit: shares for unit, shares in other_units.items() if any(shares)}
    figure, panels = drawing.bars(strategies, 1 + len(shown))
    rows = [[100 * strategy.padding_by_cause.get(cause, 0.0) for cause in PADDING_CAUSES] for strategy in strategies]
    ends = drawing.segments(panels[0], rows, {cause: CAUSES[cause] for cause in PADDING_CAUSES}, CAUSE_NAMES)
    _annotate_shares(panels[0], ends, [bool(strategy.padding_by_cause) for strategy in strategies], "positions")
    for panel, (unit, shares) in zip(panels[1:], shown.items(), strict=True):
        percent = [100 * (share or 0.0) for share in shares]
        panel.barh(range(len(strategies)), percent, drawing.BAR, color=INNER[unit], label=f"in words' {unit}")
        _annotate_shares(panel, percent, [share is not None for share in shares], unit)
    drawing.legend(figure, 2 if shown else len(CAUSES))
    return figure


def _annotate_shares(axes: Axes, ends: list[float], recorded: list[bool], unit: str) -> None:
    texts = [f"{end:.1f} %" if known else None for end, known in zip(ends, recorded, strict=True)]
    drawing.annotate_ends(axes, ends, texts)
    axes.set_xlabel(f"padding (% of {unit} in memory)", color=INK)


# name -> test whether a strategy has figures to draw, function that draws the plot
PLOTS: dict[str, tuple[Callable[[StrategySummary], object], Callable[[RunGroup], Figure]]] = {
    "quality": (lambda strategy: any(strategy.evaluations.values()), _quality),
    "throughput": (lambda strategy: strategy.real_tokens_per_s, _throughput),
    "quality_speed": (lambda strategy: strategy.quality and strategy.real_tokens_per_s, quality_speed),
    "seconds": (lambda strategy: len(strategy.seconds_by_phase) > 1, _seconds),
    "length": (lambda strategy: len(strategy.by_length) > 1, _by_length),
    "padding": (lambda strategy: strategy.padding_by_cause, _padding),
    "memory": (lambda strategy: strategy.peak_memory_bytes, _memory),
    "arithmetic": (lambda strategy: strategy.matrix_share, _matrix_share),
}
CAPTIONS = {
    "quality": "{metric} on valid over seconds of training; line: mean, band: range over seeds.",
    "throughput": "Real tokens (padding not counted) trained on per second; bar: median, line: range over runs.",
    "quality_speed": "{metric} on {split} against speed: better is up and right. Large points: mean and median, "
    "with the interval over seeds and the range of speeds; small points: single seeds.",
    "seconds": "Time by phase, mean over runs; the number at the end of each bar is the total in seconds.",
    "length": "Speed of updates by their longest row; each class is twice as long as the one before.",
    "padding": "Padding as a share of all positions in memory, by what caused it; mean over runs.",
    "memory": "Peak memory, median and range over runs, with the shape of the micro-batch that needed most, if "
    "recorded.",
    "arithmetic": "Arithmetic rate achieved in training, as a share of the rate of matrix products measured on the "
    "device; work on padding counts, so more is not always faster.",
}
