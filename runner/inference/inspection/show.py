"""What was found, on the console, as JSON, and as one self-contained page."""

from __future__ import annotations

import base64
import math
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.inference.inspection.best import Cell, Tracked, as_dicts, saturation, tracked
from runner.inference.inspection.moments import LEFT, RIGHT, Singles
from runner.inference.inspection.properties import PROPERTIES
from runner.inference.inspection.reading import Reading
from runner.inference.inspection.watch import Layer, Seen
from runner.layers.recurrent.cells import GATES

WIDEST = 1000  # columns; a table takes what it needs
SHADES = 10  # either side of the middle
EXCERPT = {True: 420, False: 90}  # characters, or words, of the line at which it begins and of those behind it


@dataclass(frozen=True)
class Report:
    """What was found in a text.

    Attributes:
        run: its name.
        source: of the text.
        found: the cells of each property.
        shown: tokens whose values the page shows.
    """

    run: str
    source: str
    reading: Reading
    seen: Seen
    found: list[Tracked]
    shown: int

    @classmethod
    def of(cls, run: str, source: str, reading: Reading, seen: Seen, cells: int) -> Report:
        shown = len(seen.layers[0].shown)
        return cls(run, source, reading, seen, tracked(seen, cells), shown)

    @property
    def summary(self) -> str:
        tokens = len(self.reading.ends)
        what = "characters" if self.reading.characters else "words and line ends"
        layers = ", ".join(f"{one.shown.shape[2]} of {', '.join(one.parts)}" for one in self.seen.layers)
        unknown = f", {self.reading.unknown:,} of them unknown to the run" if self.reading.unknown else ""
        return f"{self.source}: {tokens:,} {what}{unknown}. Layers from 0: {layers}."

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "text": self.source,
            "tokens": len(self.reading.ends),
            "unknown": self.reading.unknown,
            "unit": "character" if self.reading.characters else "word",
            "features": as_dicts(self.found),
            "saturation": saturation(self.seen.layers),
        }


def console(report: Report) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    out = Console(width=WIDEST, markup=False, highlight=False, emoji=False)
    out.print(Text(f"Cells of {report.run}", style="bold"))
    out.print(report.summary, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("feature", "best cells, layer/cell r", "best gate", "which is"):
        table.add_column(name, style="dim" if name == "which is" else "")
    for one in report.found:
        cells = "  ".join(f"{cell.name} {cell.r:+.2f}" for cell in one.cells) or "does not vary here"
        table.add_row(one.name, cells, _gate(one.gate), one.told)
    out.print(table)
    rows = saturation(report.seen.layers)
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("layer", "gate", f"below {LEFT}", f"above {RIGHT}", "units almost always below", "above", "of"):
        table.add_column(name, justify="left" if name == "gate" else "right")
    for row in rows:
        shares = (f"{100 * row['closed']:.1f} %", f"{100 * row['open']:.1f} %")
        table.add_row(
            str(row["layer"]),
            row["gate"],
            *shares,
            str(row["always_closed"]),
            str(row["always_open"]),
            str(row["units"]),
        )
    out.print(table)


def page(report: Report) -> str:
    """The report as HTML: nothing is fetched, the text is escaped."""
    environment = Environment(
        loader=PackageLoader("runner.inference.inspection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tokens = report.reading.tokens[: report.shown]
    listed = list({(cell.layer, cell.unit): cell for one in report.found for cell in one.cells}.values())
    return environment.get_template("inspect.html").render(
        report=report,
        sections=[_section(report, one, tokens) for one in report.found if one.cells],
        still=[one.name for one in report.found if not one.cells],
        most=max((len(one.cells) for one in report.found), default=0),
        saturation=saturation(report.seen.layers),
        plots=[_plot(number, layer) for number, layer in enumerate(report.seen.layers) if layer.closed],
        bounds=(LEFT, RIGHT),
        shades=SHADES,
        data={
            "tokens": tokens,
            "memory": {str(number): layer.memory for number, layer in enumerate(report.seen.layers)},
            "cells": {cell.name: _series(report.seen.layers[cell.layer], cell) for cell in listed},
            "yes": {
                one.name: np.flatnonzero(_column(report, one)[: report.shown]).tolist()
                for one in report.found
                if one.cells and PROPERTIES[one.name].yes_or_no
            },
        },
    )


def _gate(gate: Cell | None) -> str:
    return "-" if gate is None else f"{gate.part} {gate.name} {gate.r:+.2f}"


def _column(report: Report, one: Tracked) -> npt.NDArray[np.float64]:
    column: npt.NDArray[np.float64] = report.seen.properties[:, report.seen.names.index(one.name)]
    return column


def scaled(values: Singles, part: str) -> tuple[Singles, float, float]:
    """Values from -1 to 1 for a colour, and what -1 and 1 mean: the bounds of a gate or of a tanh.

    A cell state has none: 1 is what it exceeds, in either direction, at one token of fifty.
    """
    if part in GATES:
        return 2 * values - 1, 0.0, 1.0
    reach = float(np.quantile(np.abs(values), 0.98)) or 1.0 if part == "cell" else 1.0
    return np.clip(values / reach, -1.0, 1.0), -reach, reach


def _series(layer: Layer, cell: Cell) -> dict[str, Any]:
    """Every part of a unit: signed bytes (127 is 1) in base64, and what -1 and 1 mean."""
    found = {}
    for place, part in enumerate(layer.parts):
        values, low, high = scaled(layer.shown[:, place, cell.unit], part)
        data = np.rint(values * 127).astype(np.int8).tobytes()
        found[part] = {"low": low, "high": high, "data": base64.b64encode(data).decode()}
    return found


def _section(report: Report, one: Tracked, tokens: list[str]) -> dict[str, Any]:
    """A property's best cell over the passage where the property varies most."""
    column, best = _column(report, one)[: report.shown], one.cells[0]
    layer = report.seen.layers[best.layer]
    values, low, high = scaled(layer.shown[:, layer.parts.index(best.part), best.unit], best.part)
    width = EXCERPT[report.reading.characters]
    lines = [0, *(place + 1 for place, token in enumerate(tokens) if token.endswith("\n"))]
    starts = [at for at in lines if at + width <= len(tokens)] or [0]
    start = max(starts, key=lambda at: float(column[at : at + width].std()))
    marks = column > 0 if PROPERTIES[one.name].yes_or_no else np.zeros(len(column), dtype=np.bool_)
    return {
        "one": one,
        "gate": _gate(one.gate),
        "low": low,
        "high": high,
        "marked": PROPERTIES[one.name].yes_or_no,
        "runs": _runs(tokens, values, marks, slice(start, start + width)),
    }


def _runs(tokens: list[str], values: Singles, marks: npt.NDArray[np.bool_], where: slice) -> list[tuple[str, str]]:
    """Classes and text of runs of tokens of one shade."""
    shades = np.rint(values[where] * SHADES).astype(int).tolist()
    keys = zip(shades, marks[where].tolist(), strict=True)
    classes = [f"{_shade(shade)}{' on' if mark else ''}" for shade, mark in keys]
    pairs = zip(classes, tokens[where], strict=True)
    return [(name, "".join(token for _, token in run)) for name, run in groupby(pairs, key=lambda pair: pair[0])]


def _shade(shade: int) -> str:
    """p1 to p10, n1 to n10, or z."""
    return "z" if shade == 0 else f"{'p' if shade > 0 else 'n'}{min(abs(shade), SHADES)}"


def _plot(number: int, layer: Layer) -> dict[str, Any]:
    """How saturated each unit's gates are (Karpathy et al. 2015, figure 3): right share across, left share up."""
    return {
        "layer": number,
        "gates": [
            {
                "name": gate,
                "points": [(_percent(x), _percent(y)) for x, y in zip(layer.open[gate], closed, strict=True)],
            }
            for gate, closed in layer.closed.items()
        ],
    }


def _percent(share: float) -> float:
    return round(100 * share, 1) if math.isfinite(share) else 0.0
