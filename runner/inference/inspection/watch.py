"""A run over a text that records a model's recurrent layers: sums over all tokens, and the values of the first ones.

The sums, for correlations and the saturation of gates, take memory that does not grow with the text's length.
`tracked` and `saturation` summarise the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch

from runner.common.arrays import FloatArray, SingleArray
from runner.common.errors import HydromelError
from runner.inference.inspection import properties
from runner.inference.inspection.reading import Reading
from runner.interfaces import START, Encoder, State
from runner.layers.recurrent.cells import GATES
from runner.layers.recurrent.recurrence import Recurrence
from runner.model import Model, device_of

LEFT, RIGHT = 0.1, 0.9  # a gate is closed below LEFT and open above RIGHT (Karpathy et al. 2015, section 4.2)
_ROUNDING = 1e-10  # share of a column's mean square below which its variance is rounding only
WINDOW = 512  # tokens per window; memory grows with this and with the number of shown tokens, not with the text


class Moments:
    """The Pearson correlation of each of U columns with each of F others, in one pass.

    Centred sums of each passage are merged (Chan, Golub, LeVeque 1983), to avoid the cancellation of sums of squares.
    """

    def __init__(self, units: int, properties: int) -> None:
        self.count = 0
        self.means = np.zeros(units), np.zeros(properties)
        self.squares = np.zeros(units), np.zeros(properties)
        self.products = np.zeros((units, properties))

    def add(self, units: npt.NDArray[np.floating], properties: npt.NDArray[np.floating]) -> None:
        """Add a passage: (n, U) and (n, F), one row for each token."""
        n = len(units)
        if not n:
            return
        tables = units.astype(np.float64), properties.astype(np.float64)
        means = tables[0].mean(axis=0), tables[1].mean(axis=0)
        centred = tables[0] - means[0], tables[1] - means[1]
        # The merged centred sum is the sum of both passages' sums, plus the outer product of the differences of their
        # means with weight n m / (n + m).
        weight = self.count * n / (self.count + n)
        steps = means[0] - self.means[0], means[1] - self.means[1]
        self.products += centred[0].T @ centred[1] + weight * np.outer(*steps)
        for deviations, step, square, mean in zip(centred, steps, self.squares, self.means, strict=True):
            square += (deviations**2).sum(axis=0) + weight * step**2
            mean += step * n / (self.count + n)
        self.count += n

    def correlation(self) -> FloatArray:
        """Return (U, F) correlations from -1 to 1, NaN where either column does not vary."""
        spreads = []
        for square, mean in zip(self.squares, self.means, strict=True):
            varies = square > _ROUNDING * (square + self.count * mean**2)
            spreads.append(np.sqrt(np.where(varies, square, np.nan)))
        return np.clip(self.products / np.outer(*spreads), -1.0, 1.0)


@dataclass(frozen=True)
class Layer:
    """The record of a recurrent layer of H units and P parts (gates, then states)."""

    parts: tuple[str, ...]  # names of the parts
    correlation: FloatArray  # (P, H, F) for part, unit and property; NaN if either does not vary
    closed: dict[str, FloatArray]  # gate -> (H,) share of tokens at which it is closed
    open: dict[str, FloatArray]  # gate -> (H,) share of tokens at which it is open
    shown: SingleArray  # (S, P, H) float32, the values at the first S tokens

    @property
    def memory(self) -> str:
        """The name of the part that is carried on: the cell state of an LSTM, else the hidden state."""
        return self.parts[-1]


@dataclass(frozen=True)
class LayerRecords:
    """The record of a text of N tokens."""

    names: tuple[str, ...]  # names of the F properties
    properties: FloatArray  # (N, F) properties at each token's last character
    layers: list[Layer]  # records of the layers, from the first, which reads the embedding, to the last


class LayerSums:
    """The running sums of one layer of `hidden` units and the given parts."""

    def __init__(self, parts: tuple[str, ...], hidden: int, n_properties: int) -> None:
        self.parts, self.hidden = parts, hidden
        self.gates = [part for part in parts if part in GATES]
        self.moments = Moments(len(parts) * hidden, n_properties)
        self.saturated = np.zeros((2, len(self.gates), hidden), dtype=np.int64)  # numbers of tokens: closed, open
        self.kept: list[SingleArray] = []

    def add(self, values: SingleArray, table: FloatArray, keep: int) -> None:
        """Add (n, P, H) values and (n, F) properties; the first `keep` tokens are shown."""
        self.moments.add(values.reshape(len(values), len(self.parts) * self.hidden), table)
        gates = values[:, [self.parts.index(gate) for gate in self.gates]]
        self.saturated += np.stack(((gates < LEFT).sum(axis=0), (gates > RIGHT).sum(axis=0)))
        self.kept.append(values[:keep].copy())  # a view would keep the whole window in memory

    def layer(self) -> Layer:
        """Return the layer's record."""
        correlation = self.moments.correlation().reshape(len(self.parts), self.hidden, -1)
        shares = self.saturated / max(1, self.moments.count)
        closed, opened = (dict(zip(self.gates, share, strict=True)) for share in shares)
        return Layer(self.parts, correlation, closed, opened, np.concatenate(self.kept))


def watch(model: Model, reading: Reading, names: Sequence[str], shown: int) -> LayerRecords:
    """Run the text through the model's embedding and encoder, window by window with carried state.

    A layer's values are recomputed from its inputs by an explicit cell (`Recurrence.gates_and_states`), since fused
    kernels do not return their gates. `names` are those of `properties.PROPERTIES`, `shown` is the number of tokens,
    from the start, whose values are kept. An encoder without a recurrent layer is a HydromelError.
    """
    recurrences = [module for module in model.encoder.modules() if isinstance(module, Recurrence)]
    if not recurrences:
        raise HydromelError("this run's encoder has no recurrent layer; use a run with encoder=rnn, gru or lstm")
    table = properties.table(reading.text, names)[np.maximum(reading.ends - 1, 0)]
    sums = [LayerSums(recurrence.parts, recurrence.hidden, len(names)) for recurrence in recurrences]
    stop = -1  # the first position is the <eos> before the text, which is not one of its tokens
    for values in _exposed_windows(model, reading, recurrences):
        start, stop = stop, stop + len(values[0])
        skip = int(start < 0)
        for layer_sums, value in zip(sums, values, strict=True):
            layer_sums.add(value[skip:], table[start + skip : stop], max(0, shown - start - skip))
    return LayerRecords(tuple(names), table, [layer_sums.layer() for layer_sums in sums])


def _exposed_windows(model: Model, reading: Reading, recurrences: list[Recurrence]) -> Iterator[list[SingleArray]]:
    """Yield, for each window, the values (n, P, H) of each layer, on the host."""
    values: dict[Recurrence, SingleArray] = {}

    def keep(layer: Recurrence, arguments: tuple[Any, ...], named: dict[str, Any], output: object) -> None:
        values[layer] = layer.gates_and_states(*arguments, **named).values.float().cpu().numpy()

    encoder = cast(Encoder, model.encoder)
    state: State = None if reading.by_line else START
    with ExitStack() as hooks, torch.inference_mode():
        for recurrence in recurrences:
            hooks.callback(recurrence.register_forward_hook(keep, with_kwargs=True).remove)
        for batch in reading.windows(WINDOW):
            moved = batch.to(device_of(model))
            values.clear()
            _, state = encoder(model.embedding(moved.features), state)
            yield [values[recurrence] for recurrence in recurrences]


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

    def __str__(self) -> str:
        return f"{self.part} {self.name} {self.r:+.2f}"


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
        return properties.PROPERTIES[self.name].description


def tracked(records: LayerRecords, cells: int) -> list[TrackedProperty]:
    """Return, for each property, the `cells` cells and the gate with the largest |r|."""
    memory = [[layer.memory] for layer in records.layers]
    gates = [[part for part in layer.parts if part in GATES] for layer in records.layers]
    return [
        TrackedProperty(
            name, _ranked(records, place, memory, cells), next(iter(_ranked(records, place, gates, 1)), None)
        )
        for place, name in enumerate(records.names)
    ]


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
    """The saturation of one gate of one layer."""

    layer: int
    gate: str
    units: int
    closed: float  # mean share of tokens, 0 to 1, as is `open`
    open: float
    always_closed: int  # number of units that are closed at over 90 % of tokens, as is `always_open` of open ones
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
