"""Plots of one finished run in its folder: curves, seconds by phase, scores by class, errors, likelihood."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reporting.plots.style import BLUE, GREY, ORANGE, PHASES, SETTINGS, end_at_100, entitle, new_figure, save
from runner.common import records, run_schema
from runner.common.bounded import MOST_METRICS_BYTES, read_bytes
from runner.common.errors import HydromelError, shortened
from runner.common.records import Likelihood, MetricsLine, ResultRecord
from runner.tables.detail import NAMES, PAIRS, SCORES, largest, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 40  # most labels in a plot, since more could not be read; it then shows a part
LONGEST_LABEL = 40  # most characters of a label
CURVES = {  # names in legends
    "train/loss": "train",
    "valid/loss": "valid",
    "train/gradient_norm": "mean",
    "train/gradient_norm_max": "maximum",
}
UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))
KINDS = {
    "right": "#009E73",
    "boundary": "#56B4E9",
    "type": "#E69F00",
    "both": "#CC79A7",
    "missed": "#999999",
    "spurious": "#D55E00",
}
_TABLES = ("confusion", "type_confusion", "per_class", "per_type", "errors")  # the tables of detail that plots need
_ERRORS = pa.schema([NAMES, *((kind, pa.int64()) for kind in KINDS)])
log = logging.getLogger(__name__)


class RunPlots:
    """The drawing of a run's plots into its folder `plots/`."""

    def draw(self, folder: Path) -> list[Path]:
        """Write a PNG for each figure that the run has, and return their paths. The run must have a result.json.

        Raises HydromelError if its records cannot be read or drawn.
        """
        import matplotlib  # takes half a second, and is needed only here

        path = folder / run_schema.RESULT
        result = records.parse_result(read_bytes(path), str(path))
        metrics = folder / run_schema.METRICS
        lines = enumerate(read_bytes(metrics, MOST_METRICS_BYTES).splitlines() if metrics.exists() else [], start=1)
        read = [records.parse_metrics_line(line, f"{metrics}:{number}") for number, line in lines]
        target = folder / run_schema.PLOTS
        target.mkdir(exist_ok=True)
        try:
            with matplotlib.rc_context(SETTINGS):
                return save(figures(result, read, folder), target, "tight")
        except Exception as error:  # whatever matplotlib raises for numbers that it cannot scale, such as 1e308
            raise HydromelError(f"{type(error).__name__}: {shortened(str(error), 200)}") from error


def figures(result: ResultRecord, lines: list[MetricsLine], folder: Path) -> dict[str, Figure]:
    """Return the figures by name, those for which the result in `folder` has data."""
    metrics = result["metrics"]
    split, values = ("test", metrics["test"]) if "test" in metrics else ("valid", metrics["valid"])
    tables = records.parse_tables(values)
    if unread := [name for name in _TABLES if name in values and name not in tables]:
        log.warning(
            "warning: not drawn: %s of result.json are damaged or of an earlier version; train again to draw them",
            ", ".join(unread),
        )
    drawn = {"curves": curves(result, lines), "seconds": seconds(result)}
    predicted = None
    for name, value in (("confusion", tables.get("confusion")), ("type_confusion", tables.get("type_confusion"))):
        if pairs := _read(value, folder, PAIRS):
            drawn[name] = confusion(pairs, split)
            predicted = set(pairs["predicted"].to_pylist())
    if scores := _read(tables.get("per_class") or tables.get("per_type"), folder, SCORES):
        drawn["f1_by_class"] = f1_by_class(scores, split, predicted)
    if (errors := tables.get("errors")) and (per_type := _read(errors["per_type"], folder, _ERRORS)):
        drawn["errors"] = error_kinds(errors["counts"], per_type, split)
    in_spans = tables.get("calibration_in_spans")
    calibrations = {"all predictions": tables.get("calibration"), "predictions in spans": in_spans}
    if known := {title: table for title, table in calibrations.items() if table and table["bins"]}:
        drawn["calibration"] = reliability(known, split)
    if "by_position" in tables and "by_frequency" in tables:
        drawn["likelihood"] = likelihood(tables, split)
    for figure in drawn.values():
        entitle(figure, shortened(result.get("name", "")))
    return drawn


def curves(result: ResultRecord, lines: list[MetricsLine]) -> Figure:
    """Draw losses, quality on valid, norms of the gradient and the learning rate over updates; what was recorded.

    A value that is not finite is a gap.
    """
    quality, unit = result["quality"]["metric"], result["quality"].get("unit", "")
    panels = {
        "loss": {"train/loss": BLUE, "valid/loss": ORANGE},
        f"valid {shortened(quality)}{f', {shortened(unit)}' if unit else ''}": {f"valid/{quality}": ORANGE},
        "norm of the gradient": {"train/gradient_norm": BLUE, "train/gradient_norm_max": GREY},
        "learning rate": {"train/lr": BLUE},
    }
    if quality == "loss":
        del panels["valid loss"]
    drawn = {
        title: names
        for title, names in panels.items()
        if any(name in line["metrics"] for name in names for line in lines)
    }
    figure = new_figure(9, 0.6 + 2.6 * max(1, math.ceil(len(drawn) / 2)))
    grid = figure.subplots(max(1, math.ceil(len(drawn) / 2)), 2, squeeze=False).ravel()
    for axis, (title, names) in zip(grid, drawn.items(), strict=False):
        for name, colour in names.items():
            points = [(line["step"], line["metrics"][name]) for line in lines if name in line["metrics"]]
            if points:
                steps = [step for step, _ in points]
                values = [math.nan if value is None else value for _, value in points]
                dots = "o" if len(points) < 30 else None
                axis.plot(steps, values, color=colour, marker=dots, markersize=4, label=CURVES.get(name))
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=9)
        axis.set(xlabel="updates", ylabel=title)
        axis.set_xlim(left=0)
        if title == "learning rate":
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if unit == "%" and title.startswith("valid"):
            end_at_100(axis)
    for axis in grid[len(drawn) :]:
        axis.set_visible(False)
    return figure


def seconds(result: ResultRecord) -> Figure:
    """Draw seconds by phase as one stacked bar."""
    figure = new_figure(9, 1.9)
    axis = figure.subplots()
    phases: Mapping[str, object] = result["seconds"]
    left = 0.0
    for phase, colour in PHASES.items():
        width = records.finite(phases.get(phase)) or 0.0
        axis.barh(0, width, left=left, color=colour, label=f"{phase} {width:.1f} s")
        left += width
    axis.set(xlabel="seconds", yticks=[], xlim=(0, left or 1))
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _read(value: object, folder: Path, schema: pa.Schema) -> pa.Table | None:
    """Return a table of the result in `folder`, or None if it has no rows, or cannot be read (with a warning)."""
    try:
        table = read_table(value, folder, schema)
    except HydromelError as error:
        log.warning("warning: not drawn: %s", error)
        return None
    return table if table is not None and table.num_rows else None


def confusion(pairs: pa.Table, split: str) -> Figure:
    """Draw the share of each gold label's examples (rows) by predicted label (columns), with counts.

    Of more than `MOST_LABELS` labels, those with the most errors are drawn, gold or predicted.
    """
    gold, predicted, counts = (pairs[name].to_pylist() for name in PAIRS.names)
    total, errors = Counter[str](), Counter[str]()
    for row, column, count in zip(gold, predicted, counts, strict=True):
        total[row] += count
        errors[row] += count * (row != column)
        errors[column] += count * (row != column)
    labels = sorted(sorted(errors, key=lambda label: (-errors[label], label))[:MOST_LABELS], key=_placed)
    places = {label: place for place, label in enumerate(labels)}
    names = _labels(labels)
    room = max(1.6, 0.6 + 0.11 * max(map(len, names), default=0))  # for names beside the table and below it
    size = max(3.5, 0.42 * len(labels) + room)
    figure = new_figure(size + 0.9, size)
    axis = figure.subplots()
    shares = np.zeros((len(labels), len(labels)))
    for row, column, count in zip(gold, predicted, counts, strict=True):
        if row in places and column in places:
            share = shares[places[row], places[column]] = count / total[row]
            colour = "white" if share > 0.5 else "black"
            axis.text(places[column], places[row], f"{count}", ha="center", va="center", color=colour, fontsize=7)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, label="share of the gold label, % (in the cells: counts)")
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    axis.set_xticks(range(len(labels)), names, rotation=90)
    axis.set_yticks(range(len(labels)), names)
    title = split + _part(len(labels), len(errors), "labels with the most errors")
    axis.set(xlabel="predicted", ylabel="gold", title=title)
    return figure


def _placed(label: str) -> tuple[bool, str]:
    """Return the key by which labels are sorted: by name, and `(none)` at the end."""
    return label == "(none)", label


def _labels(names: Iterable[str]) -> list[str]:
    """Return names as texts of a plot: cut, and without formulas."""
    return [shortened(name, LONGEST_LABEL).replace("$", r"\$") for name in names]


def _part(shown: int, all_: int, which: str) -> str:
    """Return the end of a title that says which part of the labels is drawn; empty if all are."""
    return f": the {shown} of {all_:,} {which}" if shown < all_ else ""


def f1_by_class(scores: pa.Table, split: str, predicted: Collection[str] | None) -> Figure:
    """Draw F1 of each class or span type with its support, the most frequent `MOST_LABELS` in order from the top.

    F1 of a class that is neither gold nor `predicted` (None: unknown) is undefined, a gap.
    """
    shown = largest(scores, "support", MOST_LABELS).to_pylist()[::-1]
    figure = new_figure(6, 0.3 * len(shown) + 1.3)
    axis = figure.subplots()
    for place, row in enumerate(shown):
        is_defined = row["support"] or (predicted is not None and row["name"] in predicted)
        axis.barh(place, row["f1"] if is_defined else math.nan, color=BLUE)
        value = f"{row['f1']:.1f}" if is_defined else "undefined"
        axis.text(102, place, f"{value}  (n={row['support']:,.0f})", va="center", fontsize=9)
    axis.set_yticks(range(len(shown)), _labels(row["name"] for row in shown))
    axis.set_ylim(-0.6, len(shown) - 0.4)
    part = _part(len(shown), scores.num_rows, "most frequent")
    axis.set(xlabel=f"F1 on {split}{part}, %", xlim=(0, 100), xticks=range(0, 101, 20))
    return figure


def error_kinds(totals: Mapping[str, int], per_type: pa.Table, split: str) -> Figure:
    """Draw the spans of each type, the most frequent on top: gold spans by outcome, then spurious predictions."""
    sums = np.sum([per_type[kind].to_numpy() for kind in KINDS], axis=0)
    shown = largest(per_type.append_column("spans", pa.array(sums)), "spans", MOST_LABELS).to_pylist()[::-1]
    places = range(len(shown))
    figure = new_figure(8, 0.35 * len(shown) + 1.8)
    axis = figure.subplots()
    left = [0] * len(shown)
    for kind, colour in KINDS.items():
        counts = [row[kind] for row in shown]
        label = f"{kind} {totals[kind]:,}"
        hatch = "//" if kind == "spurious" else None  # predictions that match no gold span
        axis.barh(places, counts, left=left, color=colour, label=label, hatch=hatch, edgecolor="white", linewidth=0.5)
        left = [start + count for start, count in zip(left, counts, strict=True)]
    axis.set_yticks(places, _labels(row["name"] for row in shown))
    part = _part(len(shown), per_type.num_rows, "most frequent types")
    axis.set(xlabel=f"spans of {split}{part}: gold spans, then spurious predictions (hatched)")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9, columnspacing=1, handlelength=1.2)
    return figure


def reliability(tables: Mapping[str, records.Calibration], split: str) -> Figure:
    """Draw accuracy by predicted probability; on the diagonal predictions are as accurate as their probability says.

    `tables`: name of the predictions (`all tokens`, ...) -> `ece` and `bins` of result.json.
    """
    from matplotlib.ticker import NullFormatter

    figure = new_figure(4 * len(tables), 4.4)
    panels = figure.subplots(2, len(tables), squeeze=False, sharex=True, height_ratios=[3, 1])
    for place, (name, table) in enumerate(tables.items()):
        top, bottom = panels[0][place], panels[1][place]
        bins = table["bins"]
        middles = [50 * (row["from"] + row["to"]) for row in bins]
        top.plot([0, 100], [0, 100], color=GREY, linewidth=1)
        top.bar(middles, [row["accuracy"] for row in bins], width=9, color=BLUE, alpha=0.35)
        points = [(row["confidence"], row["accuracy"]) for row in bins]
        top.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, clip_on=False)
        top.set(xlim=(0, 100), ylim=(0, 102), title=f"{name} of {split}, ECE {table['ece']:.1f} %")
        bottom.bar(middles, [row["count"] for row in bins], width=9, color=GREY)
        bottom.set(yscale="log", xlabel="predicted probability, %")
        bottom.yaxis.set_major_formatter("{x:,.0f}")
        bottom.yaxis.set_minor_formatter(NullFormatter())
    panels[0][0].set(ylabel="accuracy, %")
    panels[1][0].set(ylabel="predictions")
    return figure


def likelihood(metrics: records.SplitTables, split: str) -> Figure:
    """Draw perplexity by position in a line and by occurrences in the training set, and below it the share of tokens.

    `metrics` are those of result.json with `perplexity`, `by_position` and `by_frequency`.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    positions, frequencies = metrics["by_position"], metrics["by_frequency"]
    tables = {"position in the line": positions, "occurrences in the training set": frequencies}
    points = [_points(table) for table in tables.values()]
    figure = new_figure(1.8 + 0.55 * sum(map(len, points)), 4.6)
    widths = [len(own) + 1 for own in points]
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=[3, 1], width_ratios=widths)
    for title, own, top, bottom in zip(tables, points, *panels, strict=True):
        _perplexities(top, own, tables[title].get("apart", {}), metrics["perplexity"])
        total = sum(point["tokens"] for point in own.values())
        bottom.bar(range(len(own)), [100 * point["tokens"] / total for point in own.values()], color=GREY, width=0.8)
        bottom.set(xlabel=title, xlim=(-0.7, len(own) - 0.3))
        bottom.set_xticks(range(len(own)), own, rotation=45, ha="right", rotation_mode="anchor")
    panels[0][0].set(ylabel=f"perplexity on {split}")
    panels[0][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    panels[0][0].yaxis.set_minor_formatter(NullFormatter())
    panels[1][0].set(ylabel="tokens, %")
    figure.align_xlabels()
    return figure


def _perplexities(axis: Axes, points: Mapping[str, Likelihood], apart: Collection[str], mean: float) -> None:
    """Draw a point for each finite perplexity, bins joined; a grey line marks the perplexity of all tokens."""
    values = [math.nan if point["perplexity"] is None else point["perplexity"] for point in points.values()]
    bins = [place for place, name in enumerate(points) if name not in apart]
    axis.axhline(mean, color=GREY, linewidth=1)
    axis.plot(bins, [values[place] for place in bins], color=BLUE, marker="o", markersize=5)
    others = [place for place in range(len(points)) if place not in bins]
    axis.plot(others, [values[place] for place in others], color=ORANGE, marker="D", markersize=5, linestyle="none")
    for place, value in enumerate(values):
        if math.isfinite(value):
            axis.annotate(short(value), (place, value), xytext=(1, 6), textcoords="offset points", fontsize=9)
    axis.set(yscale="log")
    axis.margins(y=0.15)


def short(value: float) -> str:
    """Return `20k` for 20,000: a number of 1 or more to 3 digits."""
    for unit, letter in UNITS:
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _points(table: records.LikelihoodTable) -> dict[str, Likelihood]:
    """Return the figures of bins and of separately listed strings, by name."""
    return {**{_range(row["from"], row["to"]): row for row in table["bins"]}, **table.get("apart", {})}


def _range(first: int, last: int) -> str:
    """Return the label of a bin: `1–9`; from 1,000 on, the end is rounded up: `1k–10k` for 1000 to 9999."""
    if first == last:
        return short(first)
    return f"{short(first)}–{short(last + 1 if last == 10 * first - 1 and first >= 1000 else last)}"
