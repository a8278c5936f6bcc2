"""The results of an inspection on the console, as JSON, and as one self-contained HTML page."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
from rich.text import Text

from runner.common.arrays import BoolArray, FloatArray, SingleArray
from runner.common.pages import page_template
from runner.inference.inspection.properties import PROPERTIES
from runner.inference.inspection.reading import Reading
from runner.inference.inspection.watch import LEFT, RIGHT, Layer, LayerRecords, TrackedProperty, saturation, tracked
from runner.layers.recurrent.cells import GATES
from runner.terminal.rich_tables import PlainConsole, plain_table

SHADES = 10  # shades on either side of zero
EXCERPT = {True: 420, False: 90}  # length of a passage in tokens: characters (True), or words (False)


@dataclass(frozen=True)
class InspectionReport:
    """The results of an inspection of a text."""

    run: str  # the run's name
    source: str  # name of the text
    reading: Reading
    records: LayerRecords
    properties: list[TrackedProperty]  # the units that track each property best
    shown: int  # number of tokens whose values the page shows

    @classmethod
    def of(cls, run: str, source: str, reading: Reading, records: LayerRecords, cells: int) -> InspectionReport:
        """Return the results with so many `cells` for each property."""
        return cls(run, source, reading, records, tracked(records, cells), len(records.layers[0].shown))

    @property
    def summary(self) -> str:
        """One line on the text and the layers."""
        tokens = len(self.reading.ends)
        unit = "characters" if self.reading.characters else "words and line ends"
        layers = ", ".join(f"{layer.shown.shape[2]} of {', '.join(layer.parts)}" for layer in self.records.layers)
        unknown = f", {self.reading.unknown:,} of them unknown to the run" if self.reading.unknown else ""
        return f"{self.source}: {tokens:,} {unit}{unknown}. Layers from 0: {layers}."

    def as_dict(self) -> dict[str, object]:
        """Return plain values, as `--json` writes them."""
        features: dict[str, dict[str, object]] = {}
        for item in self.properties:
            features[item.name] = {"description": item.description, **asdict(item)}
            del features[item.name]["name"]
        return {
            "run": self.run,
            "text": self.source,
            "tokens": len(self.reading.ends),
            "unknown": self.reading.unknown,
            "unit": "character" if self.reading.characters else "word",
            "features": features,
            "saturation": saturation(self.records.layers),
        }


def print_report(report: InspectionReport) -> None:
    """Print the units that track each property, and the saturation of the gates."""
    console = PlainConsole()
    console.print(Text(f"Cells of {report.run}", style="bold"))
    console.print(report.summary, soft_wrap=True)
    table = plain_table("feature", "best cells (layer/unit, r)", "best gate", "description")
    table.columns[-1].style = "dim"
    for item in report.properties:
        cells = "  ".join(f"{cell.name} {cell.r:+.2f}" for cell in item.cells) or "does not vary here"
        table.add_row(item.name, cells, str(item.gate or "-"), item.description)
    console.print(table)
    rows = saturation(report.records.layers)
    if not rows:
        return
    limits = (f"below {LEFT}", f"above {RIGHT}", "units almost always below", "almost always above", "units")
    table = plain_table("gate", "layer", *limits, numbers=True)
    for row in rows:
        shares = (f"{100 * row['closed']:.1f} %", f"{100 * row['open']:.1f} %")
        numbers = (row["always_closed"], row["always_open"], row["units"])
        table.add_row(row["gate"], str(row["layer"]), *shares, *map(str, numbers))
    console.print(table)


def page(report: InspectionReport) -> str:
    """Return the report as an HTML page that loads nothing and escapes the text."""
    tokens = report.reading.tokens[: report.shown]
    listed = list({(cell.layer, cell.unit): cell for item in report.properties for cell in item.cells}.values())
    return page_template("runner.inference.inspection", "inspect.html").render(
        report=report,
        sections=[_section(report, item, tokens) for item in report.properties if item.cells],
        constant=[item.name for item in report.properties if not item.cells],
        most=max((len(item.cells) for item in report.properties), default=0),
        saturation=saturation(report.records.layers),
        plots=[_plot(number, layer) for number, layer in enumerate(report.records.layers) if layer.closed],
        bounds=(LEFT, RIGHT),
        shades=SHADES,
        data={
            "tokens": tokens,
            "memory": {str(number): layer.memory for number, layer in enumerate(report.records.layers)},
            "cells": {cell.name: _series(report.records.layers[cell.layer], cell.unit) for cell in listed},
            "yes": {
                item.name: np.flatnonzero(_column(report, item)[: report.shown]).tolist()
                for item in report.properties
                if item.cells and PROPERTIES[item.name].yes_or_no
            },
        },
    )


def _column(report: InspectionReport, item: TrackedProperty) -> FloatArray:
    """Return (N,) a property at each token."""
    return report.records.properties[:, report.records.names.index(item.name)]


def scaled(values: SingleArray, part: str) -> tuple[SingleArray, float, float]:
    """Scale values to -1 to 1 for colours, and return the values that -1 and 1 represent.

    These are the bounds of a gate or of a tanh. A cell state is unbounded: 1 is the magnitude that it exceeds at one
    token in fifty.
    """
    if part in GATES:
        return 2 * values - 1, 0.0, 1.0
    bound = float(np.quantile(np.abs(values), 0.98)) or 1.0 if part == "cell" else 1.0
    return np.clip(values / bound, -1.0, 1.0), -bound, bound


def _series(layer: Layer, unit: int) -> dict[str, object]:
    """Return every part of a unit: signed bytes (127 is 1) in base64, and the values that -1 and 1 represent."""
    parts: dict[str, object] = {}
    for place, part in enumerate(layer.parts):
        values, low, high = scaled(layer.shown[:, place, unit], part)
        data = np.rint(values * 127).astype(np.int8).tobytes()
        parts[part] = {"low": low, "high": high, "data": base64.b64encode(data).decode()}
    return parts


def _section(report: InspectionReport, item: TrackedProperty, tokens: list[str]) -> dict[str, object]:
    """Return a property's best cell over the passage where the property varies most."""
    column, best = _column(report, item)[: report.shown], item.cells[0]
    layer = report.records.layers[best.layer]
    values, low, high = scaled(layer.shown[:, layer.parts.index(best.part), best.unit], best.part)
    width = EXCERPT[report.reading.characters]
    line_starts = [0, *(place + 1 for place, token in enumerate(tokens) if token.endswith("\n"))]
    starts = [start for start in line_starts if start + width <= len(tokens)] or [0]
    start = max(starts, key=lambda start: float(column[start : start + width].std()))
    marks = column > 0 if PROPERTIES[item.name].yes_or_no else np.zeros(len(column), dtype=np.bool_)
    return {
        "property": item,
        "gate": str(item.gate or "-"),
        "low": low,
        "high": high,
        "marked": PROPERTIES[item.name].yes_or_no,
        "runs": _runs(tokens, values, marks, slice(start, start + width)),
    }


def _runs(tokens: list[str], values: SingleArray, marks: BoolArray, where: slice) -> list[tuple[str, str]]:
    """Return the CSS classes and the text of runs of consecutive tokens of the same shade."""
    classes = []  # p1 to p10, n1 to n10, or z
    for shade, mark in zip(np.rint(values[where] * SHADES).astype(int).tolist(), marks[where].tolist(), strict=True):
        name = "z" if shade == 0 else f"{'p' if shade > 0 else 'n'}{min(abs(shade), SHADES)}"
        classes.append(f"{name}{' on' if mark else ''}")
    pairs = zip(classes, tokens[where], strict=True)
    return [(name, "".join(token for _, token in run)) for name, run in groupby(pairs, key=lambda pair: pair[0])]


def _plot(number: int, layer: Layer) -> dict[str, object]:
    """Return a scatter plot of the shares of open (x) and closed (y) gates (Karpathy et al. 2015, figure 3)."""
    shares = {gate: np.stack((layer.open[gate], closed), axis=1) for gate, closed in layer.closed.items()}
    gates = [{"name": gate, "points": (100 * points).round(1).tolist()} for gate, points in shares.items()]
    return {"layer": number, "gates": gates}
