"""Parts that plots share: colours and styles, bars, and rendering as PNG and as SVG in the page's text colour."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reporting.comparison.summary import StrategySummary
from reporting.statistics.intervals import Spread
from runner.common.errors import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a placeholder for text and axes: the SVG gets the page's own colour instead, which fits dark and light
INK = "#234567"
# colour, marker and line of each strategy, the same in every plot (from the palettes of Okabe and Ito, and of Tol)
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
# Styles of strategies not named above. A checksum of the name picks the first style to try.
OTHER = (
    ("#B0437A", "h", "--"),
    ("#44AA99", "<", "--"),
    ("#AA7744", ">", "--"),
    ("#332288", "p", "--"),
    ("#6699CC", "d", "--"),
    ("#661100", "H", "--"),
    ("#117733", "8", "--"),
)
PHASES = {
    "startup": "#BBBBBB",
    "data": "#E69F00",
    "forward": "#56B4E9",
    "backward": "#0072B2",
    "optimizer": "#009E73",
    "evaluation": "#CC79A7",
    "tracking": "#D55E00",
}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
WIDTH_INCHES, ROW_INCHES, FRAME_INCHES = 5.0, 0.42, 1.3  # narrow, so that a phone shows the text at 10 px
BAR = 0.62  # share of the height of a row
DPI = 144
METADATA = ("Date", "Creator", "Format", "Type")  # left out, so that equal figures give equal files
SETTINGS: dict[Any, Any] = {  # matplotlib types the keys as literals
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # so that a $ in a name is not taken for mathematics
    "svg.fonttype": "none",  # keep text as text: small, searchable, in the page's font
    "svg.hashsalt": "hydromel",
}


@dataclass(frozen=True)
class Plot:
    """A plot as SVG and as PNG; `png` is empty if it was not requested."""

    name: str
    caption: str
    png: bytes
    svg: str


def plot(name: str, caption: str, figure: Figure, with_png: bool) -> Plot:
    """Render a figure. The layout is computed once for both formats."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine(None)  # else each format would be drawn twice, the first time only for its layout
    png, svg = io.BytesIO(), io.StringIO()
    if with_png:
        figure.savefig(png, format="png", dpi=DPI, facecolor="white")
    figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    # Inline SVG needs no XML header, and `currentColor` is the text colour of the page around it.
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return Plot(name, caption, png.getvalue(), drawing)


def label(strategy: StrategySummary) -> str:
    """Return the name of a strategy, cut if it is long, with a mark if it is known to be wrong."""
    return shortened(strategy.name) + (" (known wrong)" if strategy.known_wrong else "")


def style(strategy: StrategySummary, strategies: Sequence[StrategySummary]) -> tuple[str, str, str]:
    """Return colour, marker and line of a strategy, by its name; strategies share one only if `OTHER` is exhausted."""
    if strategy.name in STYLES:
        return STYLES[strategy.name]
    places: dict[str, int] = {}
    for name in sorted({other.name for other in (*strategies, strategy)} - STYLES.keys()):
        first = zlib.crc32(name.encode())
        free = [place for place in range(first, first + len(OTHER)) if place % len(OTHER) not in places.values()]
        places[name] = (free[0] if free else first) % len(OTHER)
    return OTHER[places[strategy.name]]


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save(figures: Mapping[str, Figure | None], folder: Path, margins: Literal["tight"] | None = None) -> list[Path]:
    """Write each figure as NAME.png and return the paths; remove older plots of those that are None."""
    written = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(path, dpi=DPI, bbox_inches=margins)
            written.append(path)
    return written


def axes(height_inches: float) -> tuple[Figure, Axes]:
    """Return a figure and its single axes."""
    figure, (panel,) = _panels(height_inches, 1)
    return figure, panel


def _panels(height_inches: float, n: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with n panels (axes) of this height each, one below the other."""
    figure = new_figure(WIDTH_INCHES, n * height_inches)
    panels = list(figure.subplots(n, 1, squeeze=False)[:, 0])
    for panel in panels:
        panel.tick_params(colors=INK)
        for spine in panel.spines.values():
            spine.set_color(INK)
    return figure, panels


def logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade, or fewer where they would collide."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = axes.xaxis if name == "x" else axes.yaxis
    (axes.set_xscale if name == "x" else axes.set_yscale)("log", subs=(2, 3, 4, 6, 8))
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 10 * low else (1, 3) if high <= 100 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def entitle(figure: Figure, name: str, colour: str = "black") -> None:
    """Write the name of a run or a group above the panels, below a legend outside of them."""
    if len(figure.axes) > 1 and not figure.legends:
        figure.suptitle(name, fontsize=11, color=colour)
        return
    panel = figure.axes[0]
    title = ": ".join(filter(None, (name, panel.get_title())))
    panel.set_title(title, fontsize=11, color=colour)


def end_at_100(axes: Axes) -> None:
    """Let a vertical axis of percentages end at 0 and 100 at the most; points on its ends are drawn whole."""
    low, high = (min(100.0, max(0.0, end)) for end in axes.get_ylim())
    axes.set_ylim(low, high)
    for line in axes.lines:
        values = np.asarray(line.get_ydata(), dtype=np.float64)
        defined = values[np.isfinite(values)]
        line.set_clip_on(not ((low <= defined) & (defined <= high)).all())


def legend(figure: Figure, columns: int) -> None:
    """Add a legend above the panels."""
    figure.legend(
        loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=10, columnspacing=1.2
    )


def labelled(figure: Figure, axes: Axes, xlabel: str, ylabel: str, columns: int) -> Figure:
    """Add labels, a grid, and a legend of so many columns; return the figure."""
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.grid(alpha=0.25, lw=0.6)
    legend(figure, columns)
    return figure


def plain_numbers(axes: Axes) -> None:
    """Write few, whole numbers on the horizontal axis."""
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=4)


def bars(strategies: Sequence[StrategySummary], n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels for horizontal bars, the first strategy on top; names are not rotated."""
    figure, panels = _panels(FRAME_INCHES + ROW_INCHES * len(strategies), n_panels)
    for panel in panels:
        panel.set_yticks(range(len(strategies)), [label(strategy).replace(" (", "\n(") for strategy in strategies])
        panel.set_ylim(len(strategies) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", alpha=0.25, lw=0.6)
        panel.set_axisbelow(True)
    return figure, panels


def spread_bars(
    strategies: Sequence[StrategySummary],
    spread_of: Callable[[StrategySummary], Spread | None],
    scale: float = 1,
    text_of: Callable[[StrategySummary, float], str] = lambda _, median: f"{median:,.0f}",
    room: float = 1.2,
    missing: str = "not recorded",
) -> tuple[Figure, Axes]:
    """Draw a bar for each strategy: the median times `scale`, with the range of several runs as a line.

    The axis is `room` times as long as the highest value, for the texts at the ends of the bars. `missing` is the text
    of a strategy without the figure.
    """
    figure, (panel,) = bars(strategies)
    highest = 0.0
    for row, strategy in enumerate(strategies):
        if (spread := spread_of(strategy)) is None:
            annotate(panel, 0, row, missing)
            continue
        low, median, high = scale * spread.low, scale * spread.median, scale * spread.high
        hatch = "//" if strategy.known_wrong else None
        panel.barh(row, median, BAR, color=style(strategy, strategies)[0], hatch=hatch, edgecolor="white", lw=0)
        if spread.n > 1:
            panel.plot([low, high], [row, row], color=INK, lw=1.6, marker="|", ms=7)
        annotate(panel, high, row, text_of(strategy, median))
        highest = max(highest, high)
    panel.set_xlim(0, (highest or 1.0) * room)
    return figure, panel


def annotate(axes: Axes, x: float, row: int, text: str) -> None:
    """Write text at the end of a bar."""
    axes.annotate(
        text, (x, row), (5, 0), textcoords="offset points", va="center", color=INK, fontsize=10, annotation_clip=False
    )


def segments(
    axes: Axes, rows: Sequence[Sequence[float]], colours: dict[str, str], names: dict[str, str]
) -> list[float]:
    """Draw stacked bars and return where each ends. `rows[i]` has the widths of row i's parts, ordered as `colours`."""
    ends = [0.0] * len(rows)
    for place, (part, colour) in enumerate(colours.items()):
        widths = [row[place] for row in rows]
        axes.barh(range(len(rows)), widths, BAR, ends, color=colour, label=names.get(part, part))
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    return ends


def annotate_ends(axes: Axes, ends: Sequence[float], texts: Sequence[str | None]) -> None:
    """Write a text at the end of each bar (None: not recorded), and make room for it."""
    for row, (end, text) in enumerate(zip(ends, texts, strict=True)):
        annotate(axes, end, row, text or "not recorded")
    axes.set_xlim(0, (max(ends) or 1.0) * 1.2)
