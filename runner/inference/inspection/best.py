"""Which cells track which property best."""

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
    """A part of a unit, and how it goes with a property: Pearson's r, over all tokens. Counted from 0."""

    layer: int
    part: str
    unit: int
    r: float

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.unit}"


@dataclass(frozen=True)
class Tracked:
    """A property, and what goes with it; nothing where it does not vary in this text.

    Attributes:
        cells: by the memory of a layer (cell state, or hidden state), best first.
        gate: the best of all gates, or None where a layer has none.
    """

    name: str
    cells: list[Cell]
    gate: Cell | None

    @property
    def told(self) -> str:
        return PROPERTIES[self.name].told


def tracked(seen: Seen, cells: int) -> list[Tracked]:
    """For each property so many cells, and a gate; those with the largest |r|."""
    found = []
    for place, name in enumerate(seen.names):
        best = ranked(seen, place, lambda layer: (layer.memory,), cells)
        gate = ranked(seen, place, lambda layer: tuple(part for part in layer.parts if part in GATES), 1)
        found.append(Tracked(name, best, gate[0] if gate else None))
    return found


def ranked(seen: Seen, place: int, parts_of: Callable[[Layer], tuple[str, ...]], count: int) -> list[Cell]:
    """The best `count` among these parts of each layer for the property at `place`."""
    found = []
    for number, layer in enumerate(seen.layers):
        for part in parts_of(layer):
            r = layer.correlation[layer.parts.index(part), :, place]
            order = np.argsort(-np.nan_to_num(np.abs(r)), kind="stable")[:count]
            found += [Cell(number, part, int(unit), float(r[unit])) for unit in order if np.isfinite(r[unit])]
    return sorted(found, key=lambda cell: -abs(cell.r))[:count]


def saturation(layers: list[Layer]) -> list[dict[str, Any]]:
    """A row a gate of a layer: how often it is closed and open, and how many units are so almost always.

    `closed`, `open`: mean share of tokens, 0 to 1; `always_closed`, `always_open`: units so at over 90 % of tokens.
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


def as_dicts(found: list[Tracked]) -> dict[str, Any]:
    return {
        one.name: {
            "told": one.told,
            "cells": [asdict(cell) for cell in one.cells],
            "gate": None if one.gate is None else asdict(one.gate),
        }
        for one in found
    }
