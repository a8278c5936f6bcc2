"""A run over a text that records a model's recurrent layers: sums over all tokens, and the values of the first ones.

The sums, for correlations and the saturation of gates, take memory that does not grow with the text's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from runner.common.errors import HydromelError
from runner.inference.inspection import properties
from runner.inference.inspection.reading import Reading
from runner.interfaces import START, Encoder, State
from runner.layers.recurrent.cells import GATES
from runner.layers.recurrent.recurrence import Recurrence
from runner.model import Model, device_of

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

LEFT, RIGHT = 0.1, 0.9  # a gate is closed below LEFT and open above RIGHT (Karpathy et al. 2015, section 4.2)
_ROUNDING = 1e-10  # share of a column's mean square below which its variance is rounding only
WINDOW = 512  # tokens per window; memory grows with this and with the number of shown tokens, not with the text


class Moments:
    """The Pearson correlation of each of U columns with each of F others, in one pass.

    Means and centred sums of products of each passage are merged (Chan, Golub, LeVeque 1983), which avoids the
    cancellation of sums of squares.
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

    def correlation(self) -> Floats:
        """Return (U, F) correlations from -1 to 1, NaN where either column does not vary."""
        spreads = []
        for square, mean in zip(self.squares, self.means, strict=True):
            varies = square > _ROUNDING * (square + self.count * mean**2)
            spreads.append(np.sqrt(np.where(varies, square, np.nan)))
        return np.clip(self.products / np.outer(*spreads), -1.0, 1.0)


class Saturation:
    """The share of tokens at which each of U gates is closed (below `LEFT`), and open (above `RIGHT`)."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.sums = np.zeros((2, units), dtype=np.int64)

    def add(self, gates: Singles) -> None:
        """Add (n, U) gate values, 0 to 1."""
        self.count += len(gates)
        self.sums += np.stack(((gates < LEFT).sum(axis=0), (gates > RIGHT).sum(axis=0)))

    def shares(self) -> tuple[Floats, Floats]:
        """Return (U,) the shares of tokens at which gates are closed, and (U,) open: 0 to 1."""
        left, right = self.sums / max(self.count, 1)
        return left, right


@dataclass(frozen=True)
class Layer:
    """The record of a recurrent layer of H units and P parts (gates, then states)."""

    parts: tuple[str, ...]  # names of the parts
    correlation: Floats  # (P, H, F) of each part of each unit with each property; NaN where one does not vary
    closed: dict[str, Floats]  # gate -> (H,) share of tokens at which it is closed
    open: dict[str, Floats]  # gate -> (H,) share of tokens at which it is open
    shown: Singles  # (S, P, H) float32, the values at the first S tokens

    @property
    def memory(self) -> str:
        """The name of the part that is carried on: the cell state of an LSTM, else the hidden state."""
        return self.parts[-1]


@dataclass(frozen=True)
class LayerRecords:
    """The record of a text of N tokens."""

    names: tuple[str, ...]  # names of the F properties
    properties: Floats  # (N, F) properties at each token's last character
    layers: list[Layer]  # records of the layers, from the first, which reads the embedding, to the last


class _LayerSums:
    """The running sums of one layer."""

    def __init__(self, layer: Recurrence, n_properties: int) -> None:
        self.parts, self.hidden = layer.parts, layer.hidden
        self.moments = Moments(len(self.parts) * self.hidden, n_properties)
        self.saturation = {part: Saturation(self.hidden) for part in self.parts if part in GATES}
        self.kept: list[Singles] = []

    def add(self, values: Singles, table: Floats, keep: int) -> None:
        """Add (n, P, H) values and (n, F) properties; the first `keep` tokens are shown."""
        self.moments.add(values.reshape(len(values), len(self.parts) * self.hidden), table)
        for gate, saturation in self.saturation.items():
            saturation.add(values[:, self.parts.index(gate)])
        self.kept.append(values[:keep].copy())  # a view would keep the whole window in memory

    def layer(self) -> Layer:
        """Return the layer's record."""
        correlation = self.moments.correlation().reshape(len(self.parts), self.hidden, -1)
        shares = {gate: saturation.shares() for gate, saturation in self.saturation.items()}
        closed, opened = ({gate: both[place] for gate, both in shares.items()} for place in (0, 1))
        return Layer(self.parts, correlation, closed, opened, np.concatenate(self.kept))


def watch(model: Model, reading: Reading, names: Sequence[str], shown: int) -> LayerRecords:
    """Run the text through the model's embedding and encoder, window by window with carried state.

    A layer's values are recomputed from its inputs by an explicit cell (`Recurrence.gates_and_states`), since fused
    kernels do not return their gates.

    Args:
        names: names of `properties.PROPERTIES`.
        shown: number of tokens, from the start, whose values are kept.

    Raises:
        HydromelError: the encoder has no recurrent layer.
    """
    recurrences = [module for module in model.encoder.modules() if isinstance(module, Recurrence)]
    if not recurrences:
        raise HydromelError("this run's encoder has no recurrent layer; use a run with encoder=rnn, gru or lstm")
    table = properties.table(reading.text, names)[np.maximum(reading.ends - 1, 0)]
    sums = [_LayerSums(recurrence, len(names)) for recurrence in recurrences]
    stop = -1  # the first position is the <eos> before the text, which is not one of its tokens
    for values in _exposed_windows(model, reading, recurrences):
        start, stop = stop, stop + len(values[0])
        skip = int(start < 0)
        for layer_sums, value in zip(sums, values, strict=True):
            layer_sums.add(value[skip:], table[start + skip : stop], max(0, shown - start - skip))
    return LayerRecords(tuple(names), table, [layer_sums.layer() for layer_sums in sums])


def _exposed_windows(model: Model, reading: Reading, recurrences: list[Recurrence]) -> Iterator[list[Singles]]:
    """Yield, for each window, the values (n, P, H) of each layer, on the host."""
    values: dict[Recurrence, Singles] = {}

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
