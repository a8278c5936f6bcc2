"""A run over a text that records a model's recurrent layers: sums over all tokens, and the values of the first ones."""

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
from runner.inference.inspection.moments import Floats, Moments, Saturation, Singles
from runner.inference.inspection.reading import Reading
from runner.interfaces import START, Encoder, State
from runner.layers.recurrent.cells import GATES
from runner.layers.recurrent.recurrence import Recurrence
from runner.model import Model, device_of

WINDOW = 512  # tokens per window; memory grows with this and with the number of shown tokens, not with the text


@dataclass(frozen=True)
class Layer:
    """The record of a recurrent layer of H units and P parts (gates, then states).

    Attributes:
        parts: names of the parts.
        correlation: (P, H, F) correlation of each part of each unit with each property; NaN where either does not vary.
        closed, open: gate -> (H,) share of tokens at which it is saturated (`runner.inference.inspection.moments`).
        shown: (S, P, H) float32, the values at the first S tokens.
    """

    parts: tuple[str, ...]
    correlation: Floats
    closed: dict[str, Floats]
    open: dict[str, Floats]
    shown: Singles

    @property
    def memory(self) -> str:
        """The name of the part that is carried on: the cell state of an LSTM, else the hidden state."""
        return self.parts[-1]


@dataclass(frozen=True)
class LayerRecords:
    """The record of a text of N tokens.

    Attributes:
        names: names of the F properties.
        properties: (N, F) properties at each token's last character.
        layers: records of the layers, from the first, which reads the embedding, to the last.
    """

    names: tuple[str, ...]
    properties: npt.NDArray[np.float64]
    layers: list[Layer]


class _LayerSums:
    """The running sums of one layer."""

    def __init__(self, layer: Recurrence, n_properties: int) -> None:
        self.parts, self.hidden, self.n_properties = layer.parts, layer.hidden, n_properties
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
        shares = {gate: saturation.shares() for gate, saturation in self.saturation.items()}
        return Layer(
            self.parts,
            self.moments.correlation().reshape(len(self.parts), self.hidden, self.n_properties),
            {gate: closed for gate, (closed, _) in shares.items()},
            {gate: opened for gate, (_, opened) in shares.items()},
            np.concatenate(self.kept),
        )


def watch(model: Model, reading: Reading, names: Sequence[str], shown: int) -> LayerRecords:
    """Run the text through the model's embedding and encoder, window by window with carried state.

    A layer's values are recomputed from its inputs by an explicit cell (`Recurrence.gates_and_states`), since fused
    kernels do not return their gates.

    Args:
        model: the model.
        reading: the text.
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
        skip = 1 if start < 0 else 0
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
