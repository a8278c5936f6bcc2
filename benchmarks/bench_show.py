"""The table of `bench.py` on the console, as Markdown, and its ratios as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MIB = 2**20
# Hydromel: OURS if the goal is reached or there is none, else SHORT
PEER, OURS, SHORT = "#8C8C8C", "#0072B2", "#D55E00"


def show(found: dict[str, Any]) -> None:
    console = Console(width=200)
    for name, row in found.items():
        if "entrants" in row:
            console.print(_contest(row))
        elif name == "overhead":
            console.print(_overhead(row))
        elif name == "crf":
            console.print(_crf(row))
        elif name == "growth":
            console.print(_growth(row))


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the ratios to each row's reference, with their range over rounds; a goal is a diamond."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [row for row in found.values() if "entrants" in row]
    bars = [(row, one) for row in rows for one in row["entrants"]]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 1.2 + 0.2 * len(bars) + 0.35 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        place, ticks, labels = 0.0, [], []
        for row in rows:
            place += 1.4
            axes.text(
                0.012, place - 0.75, row["title"], transform=axes.get_yaxis_transform(), weight="bold", va="center"
            )
            for one in row["entrants"]:
                _bar(axes, place, one)
                ticks.append(place)
                labels.append(one["name"])
                place += 1
        axes.set_yticks(ticks, labels)
        axes.set_ylim(place, 0)
        axes.set_xscale("log")
        axes.axvline(1, color="black", lw=0.8)
        axes.set_xlim(right=1.6 * max(one["ratio"]["high"] for _, one in bars))  # room for the numbers
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(
            "times as fast as the row's reference, real tokens per second (line: range over rounds; ◆ goal)"
        )
        figure.savefig(path, dpi=140)


def _bar(axes: Any, place: float, one: dict[str, Any]) -> None:
    ratio, goal = one["ratio"], one["goal"]
    colour = SHORT if goal and ratio["median"] < goal else OURS if one["ours"] else PEER
    axes.barh(place, ratio["median"] - 1, 0.7, left=1, color=colour)
    axes.plot([ratio["low"], ratio["high"]], [place, place], color="black", lw=1)
    axes.annotate(
        f"{ratio['median']:.2f}  {one['real_tokens_per_s']['median']:,.0f}/s",
        (max(1, ratio["high"]), place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    if goal:
        axes.plot([goal], [place], marker="D", color="black", ms=4)


def _contest(row: dict[str, Any]) -> Table:
    where = row["circumstances"]
    threads = f"{where['threads']} thread{'s' * (where['threads'] > 1)}"
    title = f"{row['title']} ({where['device']}, {threads}, load {row['load_average']})"
    columns = (
        "",
        "real tokens/s",
        "range",
        "ratio",
        "range",
        "by CPU time",
        "goal",
        *([f"ratio to {row['second']}"] if row.get("second") else []),
        "padding %",
        "peak MiB",
        "training only",
    )
    table = Table(*columns, "loss, first", "last", "kernels", title=title, box=box.MARKDOWN)
    for one in row["entrants"]:
        rate, ratio, cpu, memory = (one[key] for key in ("real_tokens_per_s", "ratio", "ratio_by_cpu_time", "memory"))
        table.add_row(
            one["name"],
            f"{rate['median']:,.0f}",
            f"{rate['low']:,.0f}-{rate['high']:,.0f}",
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f}-{ratio['high']:.2f}",
            f"{cpu['median']:.2f}" if cpu else "",
            f"{one['goal']:g}" if one["goal"] else "",
            *([_to_second(one)] if row.get("second") else []),
            f"{100 * one['padding_share']:.1f}",
            f"{memory['peak_bytes'] / MIB:,.0f}",
            f"{(memory['peak_bytes'] - memory['before_training_bytes']) / MIB:,.0f}",
            f"{one['first_loss']:.3f}",
            f"{one['last_loss']:.3f}",
            one["kernels"],
        )
    for name, missing in row.get("not_run", {}).items():
        table.add_row(name, "not run here", *[""] * (len(columns)), missing)
    return table


def _to_second(one: dict[str, Any]) -> str:
    """Return the ratio to the row's second reference, with its range and goal."""
    ratio, goal = one["ratio_to_second"], one["second_goal"]
    text = f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
    return f"{text}, goal {goal:g}" if goal else text


def _overhead(row: dict[str, Any]) -> Table:
    title = f"Whole runs and bare loops, 32 rows per update (goal: at most {row['goal_percent']:g} %)"
    phases = ("data", "forward", "backward", "optimizer", "evaluation", "tracking")
    columns = ("", "bare loop", "run", "cost %", "range", "peak MiB, bare", "run", *phases)
    table = Table(*columns, title=title, box=box.MARKDOWN)
    for one in row["works"]:
        rates = [f"{one[key]['median']:,.0f}" for key in ("bare_tokens_per_s", "run_tokens_per_s")]
        cost, seconds = one["cost_percent"], one["seconds"]
        spread = f"{cost['low']:.1f} to {cost['high']:.1f}"
        peaks = [f"{one['peak_bytes'][which] / MIB:,.0f}" for which in ("bare", "run")]
        shown = [f"{seconds[phase]:.2f}" for phase in phases]
        table.add_row(one["work"], *rates, f"{cost['median']:.1f}", spread, *peaks, *shown)
    return table


def _crf(row: dict[str, Any]) -> Table:
    title = f"CRF, times as fast as pytorch-crf (goals: least {row['goal_least']:g}, median {row['goal_median']:g})"
    columns = ("lengths", "layout", "least", "median", "MiB at 128 x 50 x 50, pytorch-crf", "ours")
    table = Table(*columns, title=title, box=box.MARKDOWN)
    for one in row["of"]:
        peaks = [f"{peak / MIB:.0f}" for peak in one["peak_bytes_of_largest"].values()]
        table.add_row(one["lengths"], one["layout"], f"{one['least']:.2f}", f"{one['median']:.2f}", *peaks)
    return table


def _growth(row: dict[str, Any]) -> Table:
    title = "Growth with the corpus: microseconds per token, and bytes per token beyond the smallest corpus"
    names = ("numericalise", "from_cache", "plan_shuffled", "plan_bucketed", "select_packed", "select_padded")
    table = Table("tokens", *(name.replace("_", " ") for name in names), "bytes a token", title=title, box=box.MARKDOWN)
    smallest = row["sizes"][0]
    for one in row["sizes"]:
        microseconds = (f"{1e6 * one[f'{name}_seconds'] / one['tokens']:.3f}" for name in names)
        more = one["tokens"] - smallest["tokens"]
        bytes_a_token = f"{(one['peak_bytes'] - smallest['peak_bytes']) / more:.0f}" if more else ""
        table.add_row(f"{one['tokens']:,}", *microseconds, bytes_a_token)
    return table
