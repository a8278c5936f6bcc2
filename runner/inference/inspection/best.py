"""The cells that track each property best, and the saturation of the gates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from runner.inference.inspection.properties import PROPERTIES
from runner.inference.inspection.watch import Layer, LayerRecords
from runner.layers.recurrent.cells import GATES


@dataclass(frozen=True)
class TrackedUnit:
    """A part of a unit (a gate or its memory), and its correlation r with a property; numbers count from 0."""

    layer: int
    part: str
    unit: int
    r: float

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.unit}"


@dataclass(frozen=True)
class TrackedProperty:
    """A property with the cells and the gate that track it best; none where it does not vary in this text.

    Cells are chosen by the memory of their layer (cell state, or hidden state), best first.
    """

    name: str
    cells: list[TrackedUnit]
    gate: TrackedUnit | None

    @property
    def description(self) -> str:
        return PROPERTIES[self.name].description


def tracked(records: LayerRecords, cells: int) -> list[TrackedProperty]:
    """Return, for each property, the `cells` cells and the gate with the largest |r|."""
    memory = [[layer.memory] for layer in records.layers]
    gates = [[part for part in layer.parts if part in GATES] for layer in records.layers]
    properties = []
    for place, name in enumerate(records.names):
        best, best_gates = _ranked(records, place, memory, cells), _ranked(records, place, gates, 1)
        properties.append(TrackedProperty(name, best, best_gates[0] if best_gates else None))
    return properties


def _ranked(records: LayerRecords, place: int, parts: list[list[str]], count: int) -> list[TrackedUnit]:
    """Return the `count` units with the largest |r| for the property at `place`, among some parts of each layer."""
    best = []
    for number, layer in enumerate(records.layers):
        for part in parts[number]:
            r = layer.correlation[layer.parts.index(part), :, place]
            order = np.argsort(-np.nan_to_num(np.abs(r)), kind="stable")[:count]
            best += [TrackedUnit(number, part, int(unit), float(r[unit])) for unit in order if np.isfinite(r[unit])]
    return sorted(best, key=lambda cell: -abs(cell.r))[:count]


class GateSaturation(TypedDict):
    """The saturation of one gate of one layer.

    `closed` and `open` are mean shares of tokens, 0 to 1; `always_closed` and `always_open` are numbers of units that
    are closed or open at over 90 % of tokens.
    """

    layer: int
    gate: str
    units: int
    closed: float
    open: float
    always_closed: int
    always_open: int


def saturation(layers: list[Layer]) -> list[GateSaturation]:
    """Return the saturation of each gate of each layer."""
    return [
        {
            "layer": number,
            "gate": gate,
            "units": len(layer.closed[gate]),
            "closed": float(layer.closed[gate].mean()),
            "open": float(layer.open[gate].mean()),
            "always_closed": int((layer.closed[gate] > 0.9).sum()),
            "always_open": int((layer.open[gate] > 0.9).sum()),
        }
        for number, layer in enumerate(layers)
        for gate in layer.closed
    ]


def as_dicts(tracked_properties: list[TrackedProperty]) -> dict[str, object]:
    """Return plain values, as `--json` writes them."""
    plain = {item.name: asdict(item) | {"description": item.description} for item in tracked_properties}
    return {name: {key: fields[key] for key in ("description", "cells", "gate")} for name, fields in plain.items()}
