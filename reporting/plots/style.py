"""What plots share: their look, a strategy's colour, bars, and a figure as PNG and as SVG that takes the page's ink."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reporting.comparison.summary import Strategy

INK = "#234567"  # the colour of text and axes in the SVG: replaced by the page's own, so that it fits dark and light
# colour, marker and line of a strategy are fixed, whatever else is in the plot (Okabe and Ito's palette, and Tol's)
STYLES = {
    "size1": ("#CC79A7", "s", "-"),
    "same_length": ("#E69F00", "^", "-"),
    "bucketed": ("#009E73", "D", "-"),
    "padmask": ("#0072B2", "o", "-"),
    "packed": ("#D55E00", "v", "-"),
    "timestep": ("#8172D5", "*", "-"),
    "token_budget": ("#56B4E9", "P", "-"),
    "stream": ("#999933", "X", "-"),
    "unmasked": ("#8C8C8C", "x", ":"),
}
OTHER = (("#B0437A", "h", "--"), ("#44AA99", "<", "--"), ("#AA7744", ">", "--"))
PHASES = {
    "startup": "#BBBBBB",
    "data": "#E69F00",
    "forward": "#56B4E9",
    "backward": "#0072B2",
    "optimizer": "#009E73",
    "evaluation": "#CC79A7",
    "tracking": "#D55E00",
}
WIDTH_INCHES, ROW_INCHES, FRAME_INCHES = 5.0, 0.42, 1.1  # narrow, so that a phone shows the text at 10 px
BAR = 0.62  # of the height of a row
DPI = 144
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
    """`png` is empty where none was asked for."""

    name: str
    caption: str
    png: bytes
    svg: str


def plot(name: str, caption: str, figure: Any, with_png: bool) -> Plot:
    """The figure drawn; its places are worked out once for both forms."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)  # else each form would be drawn twice, first to place things
    png, svg = io.BytesIO(), io.StringIO()
    if with_png:
        figure.savefig(png, format="png", dpi=DPI, facecolor="white")
    figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return Plot(name, caption, png.getvalue(), drawing)


def label(strategy: Strategy) -> str:
    return f"{strategy.name} (known wrong)" if strategy.known_wrong else strategy.name


def style(strategy: Strategy, strategies: Sequence[Strategy]) -> tuple[str, str, str]:
    """Its colour, marker and line; names without a place in the palette take turns in what is left."""
    others = [each.name for each in strategies if each.name not in STYLES]
    return STYLES[strategy.name] if strategy.name in STYLES else OTHER[others.index(strategy.name) % len(OTHER)]


def axes(height_inches: float) -> tuple[Any, Any]:
    """A figure and its one pair of axes."""
    figure, (one,) = stacked([height_inches])
    return figure, one


def stacked(heights_inches: Sequence[float]) -> tuple[Any, list[Any]]:
    """A figure with one pair of axes below another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, sum(heights_inches)), layout="constrained")
    rows = figure.subplots(len(heights_inches), 1, squeeze=False, height_ratios=list(heights_inches))[:, 0]
    for one in rows:
        one.tick_params(colors=INK)
        for spine in one.spines.values():
            spine.set_color(INK)
    return figure, list(rows)


def logarithmic(axis: Any) -> None:
    """With plain numbers at 1, 2 and 5 of each decade; at fewer where the axis is long, so that they stand apart."""
    from matplotlib.ticker import LogLocator, NullFormatter

    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log", subs=(2, 3, 4, 6, 8))
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 10 * low else (1, 3) if high <= 100 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Any, columns: int) -> None:
    figure.legend(
        loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=10, columnspacing=1.2
    )


def bars(strategies: Sequence[Strategy]) -> tuple[Any, Any]:
    """Axes for horizontal bars, the first strategy on top, so that long names are read without turning the head."""
    figure, one = axes(height(strategies))
    rows_of(one, strategies)
    return figure, one


def height(strategies: Sequence[Strategy]) -> float:
    """Inches that bars of them need."""
    return FRAME_INCHES + ROW_INCHES * len(strategies)


def rows_of(one: Any, strategies: Sequence[Strategy]) -> None:
    """Name the rows of these axes."""
    one.set_yticks(range(len(strategies)), [label(strategy).replace(" (", "\n(") for strategy in strategies])
    one.set_ylim(len(strategies) - 0.4, -0.6)
    one.tick_params(axis="y", length=0)
    one.grid(axis="x", alpha=0.25, lw=0.6)
    one.set_axisbelow(True)


def bar(one: Any, row: int, width: float, strategy: Strategy, strategies: Sequence[Strategy]) -> None:
    hatch = "//" if strategy.known_wrong else None
    one.barh(row, width, BAR, color=style(strategy, strategies)[0], hatch=hatch, edgecolor="white", lw=0)


def say(one: Any, x: float, row: int, text: str) -> None:
    """Words at the end of a bar."""
    one.annotate(
        text, (x, row), (5, 0), textcoords="offset points", va="center", color=INK, fontsize=10, annotation_clip=False
    )


def segments(one: Any, rows: Sequence[Sequence[float]], colours: dict[str, str], names: dict[str, str]) -> list[float]:
    """Stacked bars: `rows[i]` are the widths of row i's parts, in the order of `colours`; returns where each ends."""
    ends = [0.0] * len(rows)
    for at, (part, colour) in enumerate(colours.items()):
        widths = [row[at] for row in rows]
        one.barh(range(len(rows)), widths, BAR, ends, color=colour, label=names.get(part, part))
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    return ends
