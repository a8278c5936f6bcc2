"""Runs a text through a model and keeps what its recurrent layers compute: sums over all, the values of its begin."""

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

WINDOW = 512  # tokens at a time: memory is that of these and of what is shown, whatever the text's length


@dataclass(frozen=True)
class Layer:
    """What was seen of a recurrent layer of H units and P parts (gates, then state; `parts` names them).

    Attributes:
        correlation: (P, H, F) of each part of each unit with each property; NaN where either does not vary.
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
        """What carries on: the cell state of an LSTM, else the hidden state."""
        return self.parts[-1]


@dataclass(frozen=True)
class Seen:
    """What was seen of a text of N tokens.

    Attributes:
        names: of the F properties.
        properties: (N, F) at each token's last character.
        layers: the first, which reads the embedding, to the last.
    """

    names: tuple[str, ...]
    properties: npt.NDArray[np.float64]
    layers: list[Layer]


class _Watched:
    """The sums of one layer."""

    def __init__(self, layer: Recurrence, n_properties: int) -> None:
        self.parts, self.hidden, self.n_properties = layer.parts, layer.hidden, n_properties
        self.moments = Moments(len(self.parts) * self.hidden, n_properties)
        self.saturation = {part: Saturation(self.hidden) for part in self.parts if part in GATES}
        self.kept: list[Singles] = []

    def add(self, values: Singles, table: Floats, keep: int) -> None:
        """(n, P, H) values and (n, F) properties, of which the first `keep` are to be shown."""
        self.moments.add(values.reshape(len(values), len(self.parts) * self.hidden), table)
        for gate, one in self.saturation.items():
            one.add(values[:, self.parts.index(gate)])
        self.kept.append(values[:keep].copy())  # a view would keep the whole window

    def layer(self) -> Layer:
        shares = {gate: one.shares() for gate, one in self.saturation.items()}
        return Layer(
            self.parts,
            self.moments.correlation().reshape(len(self.parts), self.hidden, self.n_properties),
            {gate: closed for gate, (closed, _) in shares.items()},
            {gate: opened for gate, (_, opened) in shares.items()},
            np.concatenate(self.kept),
        )


def watch(model: Model, reading: Reading, names: Sequence[str], shown: int) -> Seen:
    """Run the text through the model's embedding and encoder, window by window, its state carried on.

    A layer's values are recomputed from what it reads, by the cell written out (`Recurrence.exposed`), since fused
    kernels show no gates.

    Args:
        names: of `properties.PROPERTIES`.
        shown: tokens from the begin whose values are kept.

    Raises:
        HydromelError: the encoder has no recurrent layer.
    """
    recurrences = [one for one in model.encoder.modules() if isinstance(one, Recurrence)]
    if not recurrences:
        raise HydromelError("this run's encoder has no recurrent layer (those of encoder=rnn, gru and lstm are)")
    table = properties.table(reading.text, names)[np.maximum(reading.ends - 1, 0)]
    watched = [_Watched(one, len(names)) for one in recurrences]
    at = -1  # the first place is the <eos> before the text: no token of it
    for values in _exposed(model, reading, recurrences):
        first, at = at, at + len(values[0])
        skip = 1 if first < 0 else 0
        for one, value in zip(watched, values, strict=True):
            one.add(value[skip:], table[first + skip : at], max(0, shown - first - skip))
    return Seen(tuple(names), table, [one.layer() for one in watched])


def _exposed(model: Model, reading: Reading, recurrences: list[Recurrence]) -> Iterator[list[Singles]]:
    """Of each window (n, P, H) a layer, on the host."""
    seen: dict[Recurrence, Singles] = {}

    def expose(layer: Any, args: Any, options: Any, output: Any) -> None:
        seen[layer] = layer.exposed(*args, **options).values.float().cpu().numpy()

    encoder = cast(Encoder, model.encoder)
    state: State = None if reading.by_line else START
    with ExitStack() as hooks, torch.inference_mode():
        for one in recurrences:
            hooks.callback(one.register_forward_hook(expose, with_kwargs=True).remove)
        for batch in reading.windows(WINDOW):
            moved = batch.to(device_of(model))
            seen.clear()
            _, state = encoder(model.embedding(moved.features), state)
            yield [seen[one] for one in recurrences]
