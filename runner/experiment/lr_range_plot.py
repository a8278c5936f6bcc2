"""The plot of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

from runner.experiment.lr_range import Range

_DPI = 160
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def draw(found: Range, path: Path) -> None:
    """Write a PNG: loss over rate, on a logarithmic axis, and what is read off it."""
    import matplotlib  # half a second, needed here alone
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(found.rates, found.losses, color=_BLUE, alpha=0.3, lw=0.8, label="loss of each update")
        axes.plot(found.rates, found.smoothed, color=_BLUE, lw=2, label="smoothed")
        marks = {"suggested": (found.suggestion, _ORANGE, "-"), "steepest": (found.steepest, _GREEN, "--")}
        for name, (rate, colour, line) in marks.items():
            if rate is not None:
                axes.axvline(rate, color=colour, ls=line, lw=1.4, label=f"{name} {rate:.2g}")
        axes.set_xscale("log")
        if found.lowest is not None:  # where it diverges it leaves the picture, lest the fall be too small to see
            begin, least = found.smoothed[0], found.smoothed.min()
            axes.set_ylim(least - 0.5 * (begin - least), begin + 1.5 * (begin - least))
        axes.set(xlabel="learning rate", ylabel="mean loss of an update")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, columnspacing=1.4)
        figure.savefig(path, dpi=_DPI)
