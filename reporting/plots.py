"""The plots of one group: quality over training seconds, throughput, padding by cause. Each as PNG and as SVG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reporting.run import Evaluation
from reporting.summary import Group, Strategy
from runner.names import LOWER_IS_BETTER, PADDING_CAUSES

INK = "#234567"  # the colour of text and axes in the SVG: replaced by the page's own, so that it fits dark and light
# colour, marker and line of a strategy are fixed, whatever else is in the plot (Okabe and Ito's palette, and Tol's)
STYLES = {
    "size1": ("#CC79A7", "s", "-"),
    "same_length": ("#E69F00", "^", "-"),
    "bucketed": ("#009E73", "D", "-"),
    "padmask": ("#0072B2", "o", "-"),
    "packed": ("#D55E00", "v", "-"),
    "timestep": ("#332288", "*", "-"),
    "token_budget": ("#56B4E9", "P", "-"),
    "stream": ("#999933", "X", "-"),
    "unmasked": ("#8C8C8C", "x", ":"),
}
OTHER = (("#882255", "h", "--"), ("#44AA99", "<", "--"), ("#AA7744", ">", "--"))
CAUSES = {
    "spread": ("#4477AA", "lengths differ"),
    "last_batch": ("#EE8866", "last batch"),
    "rounding": ("#BBBB55", "rounding"),
}
WIDTH_INCHES, ROW_INCHES, FRAME_INCHES = 5.0, 0.42, 1.1  # narrow, so that a phone shows the text at 10 px
DPI = 192
METADATA = ("Date", "Creator", "Format", "Type")  # left out: the same figures give the same file
SETTINGS: dict[Any, Any] = {
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a name with $ in it is a name
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "hydromel",
}


@dataclass(frozen=True)
class Plot:
    name: str
    caption: str
    png: bytes
    svg: str


def plots(group: Group) -> list[Plot]:
    """The plots that this group has figures for."""
    import matplotlib  # half a second, needed here alone

    drawn = []
    with matplotlib.rc_context(SETTINGS):
        if any(points for strategy in group.strategies for points in strategy.evaluations.values()):
            caption = f"{group.metric} on valid over seconds of training; line: mean, band: range over seeds."
            drawn.append(_plot("quality", caption, _quality(group)))
        if any(strategy.real_tokens_per_s for strategy in group.strategies):
            caption = "Real tokens (padding not counted) trained on per second; bar: median, line: range over runs."
            drawn.append(_plot("throughput", caption, _throughput(group.strategies)))
        if any(strategy.padding_by_cause for strategy in group.strategies):
            caption = "Padding as a share of all positions in memory, by what caused it; mean over runs."
            drawn.append(_plot("padding", caption, _padding(group.strategies)))
    return drawn


def label(strategy: Strategy) -> str:
    return f"{strategy.name} (known wrong)" if strategy.known_wrong else strategy.name


def _plot(name: str, caption: str, figure: Any) -> Plot:
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="white")
    figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return Plot(name, caption, png.getvalue(), drawing)


def _axes(height_inches: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    return figure, axes


def _style(strategy: Strategy, strategies: list[Strategy]) -> tuple[str, str, str]:
    others = [each.name for each in strategies if each.name not in STYLES]
    return STYLES[strategy.name] if strategy.name in STYLES else OTHER[others.index(strategy.name) % len(OTHER)]


def _legend(figure: Any, columns: int) -> None:
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=10)


def _quality(group: Group) -> Any:
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _axes(4.2)
    for strategy in group.strategies:
        colour, marker, line = _style(strategy, group.strategies)
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
        axes.set_xscale("log", subs=(2, 3, 4, 6, 8))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    unit = "" if group.metric in LOWER_IS_BETTER else " (%)"
    axes.set_xlabel("training time (s)", color=INK)
    axes.set_ylabel(f"{group.metric} on valid{unit}", color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    _legend(figure, 2)
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


def _bars(strategies: list[Strategy]) -> tuple[Any, Any]:
    """Horizontal bars, the first strategy on top, so that long names are read without turning the head."""
    figure, axes = _axes(FRAME_INCHES + ROW_INCHES * len(strategies))
    axes.set_yticks(range(len(strategies)), [label(strategy).replace(" (", "\n(") for strategy in strategies])
    axes.set_ylim(len(strategies) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _throughput(strategies: list[Strategy]) -> Any:
    figure, axes = _bars(strategies)
    top = max(each.real_tokens_per_s.high for each in strategies if each.real_tokens_per_s)
    for row, strategy in enumerate(strategies):
        speed = strategy.real_tokens_per_s
        if speed is None:
            continue
        hatch = "//" if strategy.known_wrong else None
        axes.barh(row, speed.median, 0.62, color=_style(strategy, strategies)[0], hatch=hatch, edgecolor="white", lw=0)
        if speed.n > 1:
            axes.plot([speed.low, speed.high], [row, row], color=INK, lw=1.6, marker="|", ms=7)
        axes.text(speed.high + 0.015 * top, row, f"{speed.median:,.0f}", va="center", color=INK, fontsize=10)
    axes.set_xlim(0, top * 1.2)  # room for the figures
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("real tokens per second", color=INK)
    return figure


def _padding(strategies: list[Strategy]) -> Any:
    figure, axes = _bars(strategies)
    edges = [[0.0] for _ in strategies]
    for cause in PADDING_CAUSES:
        colour, name = CAUSES[cause]
        for row, strategy in enumerate(strategies):
            edges[row].append(edges[row][-1] + 100 * strategy.padding_by_cause.get(cause, 0.0))
        spans = [list(pairwise(each))[-1] for each in edges]
        axes.barh(
            range(len(strategies)), [b - a for a, b in spans], 0.62, [a for a, _ in spans], color=colour, label=name
        )
    top = max(each[-1] for each in edges) or 1.0
    for row, strategy in enumerate(strategies):
        text = f"{edges[row][-1]:.1f} %" if strategy.padding_by_cause else "not recorded"
        axes.text(edges[row][-1] + 0.015 * top, row, text, va="center", color=INK, fontsize=10)
    axes.set_xlim(0, top * 1.2)
    axes.set_xlabel("padding (% of positions in memory)", color=INK)
    _legend(figure, len(CAUSES))
    return figure
