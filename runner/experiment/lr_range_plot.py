"""The plot of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

from runner.experiment.lr_range import Range

_DPI = 160
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def draw(measured: Range, path: Path) -> None:
    """Write a PNG of the loss over the rate, on a logarithmic axis, with the derived rates."""
    import matplotlib  # takes half a second, so only here
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(measured.rates, measured.losses, color=_BLUE, alpha=0.3, lw=0.8, label="loss of each update")
        axes.plot(measured.rates, measured.smoothed, color=_BLUE, lw=2, label="smoothed")
        marks = {"suggested": (measured.suggestion, _ORANGE, "-"), "steepest": (measured.steepest, _GREEN, "--")}
        for name, (rate, colour, line) in marks.items():
            if rate is not None:
                axes.axvline(rate, color=colour, ls=line, lw=1.4, label=f"{name} {rate:.2g}")
        axes.set_xscale("log")
        if measured.lowest is not None:  # a diverging loss leaves the picture, so that its fall before stays visible
            start, lowest = measured.smoothed[0], measured.smoothed.min()
            axes.set_ylim(lowest - 0.5 * (start - lowest), start + 1.5 * (start - lowest))
        axes.set(xlabel="learning rate", ylabel="mean loss of an update")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, columnspacing=1.4)
        figure.savefig(path, dpi=_DPI)
