"""The plots of a search in its folder: the metric of each trial, and the importance of options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting.plots.style import BLUE, ORANGE, SETTINGS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCH = "search.json"
DARK_GREY = "#8C8C8C"


class SearchPlots:
    """The drawing of a search's history.png and importance.png."""

    def draw(self, folder: Path) -> list[Path]:
        """Remove older plots, write those for which there is data, and return their paths."""
        import matplotlib  # takes half a second, and is needed only here

        search = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
        with matplotlib.rc_context(SETTINGS):
            return save({"history": history(search), "importance": importance(search)}, folder)


def history(search: Mapping[str, Any]) -> Figure | None:
    """Draw each trial's metric on valid, and the best so far; None without a finished trial."""
    from matplotlib.ticker import MaxNLocator

    finished = [(trial["number"], trial["value"]) for trial in search["trials"] if trial["ended"] == "finished"]
    if not finished:
        return None
    figure = new_figure(7, 3.6)
    axes = figure.add_subplot()
    best = max if search["higher_is_better"] else min
    so_far = [best(value for _, value in finished[: place + 1]) for place in range(len(finished))]
    axes.step([number for number, _ in finished], so_far, where="post", color=ORANGE, lw=1.6, label="best so far")
    axes.plot(*zip(*finished, strict=True), "o", color=BLUE, ms=5, label="finished")
    ended = [trial for trial in search["trials"] if trial["ended"] == "pruned"]
    if pruned := [(trial["number"], trial["evaluations"][-1]) for trial in ended]:
        axes.plot(*zip(*pruned, strict=True), "x", color=DARK_GREY, ms=6, label="ended early (last figure)")
    if failed := [trial["number"] for trial in search["trials"] if trial["ended"] == "failed"]:
        # they have no metric, so they stand on the lower edge
        edge, places = axes.get_xaxis_transform(), [0.02] * len(failed)
        axes.plot(failed, places, "v", color="black", ms=6, transform=edge, clip_on=False, label="failed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{search['metric']} on valid")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=10)
    return figure


def importance(search: Mapping[str, Any]) -> Figure | None:
    """Draw each option's share of the variance, the largest on top; None if it was not computed."""
    if search["importance"] is None:
        return None
    shares = sorted(search["importance"].items(), key=lambda item: float(item[1]))
    figure = new_figure(7, 0.4 * len(shares) + 1.1)
    axes = figure.add_subplot()
    bars = axes.barh([name for name, _ in shares], [100 * share for _, share in shares], 0.62, color=BLUE)
    axes.bar_label(bars, fmt="%.0f %%", padding=4, fontsize=10)
    axes.set(xlabel=f"share of the variance of {search['metric']} over finished trials (%)")
    axes.set_xlim(0, 100 * shares[-1][1] * 1.15)
    axes.tick_params(axis="y", length=0)
    return figure
