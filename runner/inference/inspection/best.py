"""The cells that track each property best, and the saturation of the gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runner.inference.inspection.properties import PROPERTIES
from runner.inference.inspection.watch import Layer, Seen
from runner.layers.recurrent.cells import GATES


@dataclass(frozen=True)
class Cell:
    """A part of a unit (a gate or its memory), and its correlation with a property.

    Attributes:
        layer: number of the layer, from 0.
        part: name of the part.
        unit: number of the unit, from 0.
        r: Pearson's r over all tokens.
    """

    layer: int
    part: str
    unit: int
    r: float

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.unit}"


@dataclass(frozen=True)
class Tracked:
    """A property with the cells and the gate that track it best; none where it does not vary in this text.

    Attributes:
        name: the property's name.
        cells: cells by the memory of their layer (cell state, or hidden state), best first.
        gate: the best gate, or None where no layer has gates.
    """

    name: str
    cells: list[Cell]
    gate: Cell | None

    @property
    def told(self) -> str:
        return PROPERTIES[self.name].told


def tracked(seen: Seen, cells: int) -> list[Tracked]:
    """Return, for each property, the `cells` cells and the gate with the largest |r|."""
    properties = []
    for place, name in enumerate(seen.names):
        best = ranked(seen, place, lambda layer: (layer.memory,), cells)
        gates = ranked(seen, place, lambda layer: tuple(part for part in layer.parts if part in GATES), 1)
        properties.append(Tracked(name, best, gates[0] if gates else None))
    return properties


def ranked(seen: Seen, place: int, parts_of: Callable[[Layer], tuple[str, ...]], count: int) -> list[Cell]:
    """Return the `count` units with the largest |r| for the property at `place`, among some parts of each layer."""
    best = []
    for number, layer in enumerate(seen.layers):
        for part in parts_of(layer):
            r = layer.correlation[layer.parts.index(part), :, place]
            order = np.argsort(-np.nan_to_num(np.abs(r)), kind="stable")[:count]
            best += [Cell(number, part, int(unit), float(r[unit])) for unit in order if np.isfinite(r[unit])]
    return sorted(best, key=lambda cell: -abs(cell.r))[:count]


def saturation(layers: list[Layer]) -> list[dict[str, Any]]:
    """Return a row for each gate of each layer: how often it is closed or open, and for how many units almost always.

    `closed` and `open` are mean shares of tokens, 0 to 1; `always_closed` and `always_open` are numbers of units that
    are closed or open at over 90 % of tokens.
    """
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


def as_dicts(tracked_properties: list[Tracked]) -> dict[str, Any]:
    """Return plain values, as `--json` writes them."""
    return {
        item.name: {
            "told": item.told,
            "cells": [asdict(cell) for cell in item.cells],
            "gate": None if item.gate is None else asdict(item.gate),
        }
        for item in tracked_properties
    }
