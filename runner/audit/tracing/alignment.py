"""Which part of a module's output belongs to which example, told from shapes alone.

B examples of `lengths`, N tokens in all, T the padded width. One shape may be read in several ways (B = T, ...); what
is possible in every run, with other B, T and N each time, is how the module means it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from runner.ragged.ragged import Ragged

Part = Tensor | Ragged | PackedSequence
# how a part may be read, the likelier first
READINGS = ("ragged", "packed", "padded", "time_major", "channels_first", "flat", "tokens", "rows", "states", "steps")
PER_ROW = {"rows", "states"}  # no position: one value an example


@dataclass(frozen=True)
class Geometry:
    """How the examples of one run lay side by side.

    Attributes:
        lengths: (B,) tokens of each example.
        width: T, at least 1.
        left: padding stands before the tokens.
    """

    lengths: tuple[int, ...]
    width: int
    left: bool = False

    def places(self, row: int) -> slice:
        """Where the tokens of `row` stand among its T places."""
        length = self.lengths[row]
        return slice(self.width - length, self.width) if self.left else slice(0, length)


def parts(output: Any) -> list[Part]:
    """The tensors of an output, in order, whatever holds them."""
    if isinstance(output, Tensor | Ragged | PackedSequence):
        return [output]
    inside: Iterable[Any] = ()
    if isinstance(output, Mapping):
        inside = output.values()
    elif isinstance(output, tuple | list):
        inside = output
    return [part for one in inside for part in parts(one)]


def possible(part: Part, geometry: Geometry) -> set[str]:
    """The readings that the shape allows in this run."""
    if isinstance(part, Ragged):
        return (
            {"ragged"}
            if tuple(part.rows.host_lengths.tolist()) == geometry.lengths
            else _readings(part.values, geometry)
        )
    if isinstance(part, PackedSequence):
        return {"packed"}
    return _readings(part, geometry)


def _readings(values: Tensor, geometry: Geometry) -> set[str]:
    shape, n_rows, width = tuple(values.shape), len(geometry.lengths), geometry.width
    first, second = (*shape, -1, -1)[:2]
    holds = {
        "padded": first == n_rows and second == width,
        "time_major": first == width and second == n_rows,
        "channels_first": len(shape) >= 3 and first == n_rows and shape[-1] == width,
        "flat": first == n_rows * width,
        "tokens": first == sum(geometry.lengths),
        "rows": first == n_rows,
        "states": len(shape) == 3 and second == n_rows,
        "steps": first == width,
    }
    return {reading for reading, possible in holds.items() if possible}


def reading(seen: Iterable[tuple[Part, Geometry]]) -> str | None:
    """The likeliest reading that all runs allow; None where there is none."""
    allowed: set[str] = set(READINGS)
    for part, geometry in seen:
        allowed &= possible(part, geometry)
    return next((name for name in READINGS if name in allowed), None)


def split(part: Part, how: str, geometry: Geometry) -> list[Tensor]:
    """One tensor an example: (length, *), or (*) for readings in `PER_ROW`.

    Raises:
        ValueError: a part that cannot be read so.
    """
    if how not in possible(part, geometry):
        raise ValueError(f"a part of the output cannot be read as {how!r}")
    if isinstance(part, Ragged):
        if how == "ragged":
            return list(torch.split(part.tokens(), list(geometry.lengths)))
        part = part.values
    if isinstance(part, PackedSequence):
        return _unpacked(part)
    if how == "tokens":
        return list(torch.split(part, list(geometry.lengths)))
    n_rows = len(geometry.lengths)
    if how in PER_ROW:
        return list(part if how == "rows" else part.transpose(0, 1))
    if how == "steps":
        return [part[geometry.places(row)] for row in range(n_rows)]
    if how == "flat":
        part = part.reshape(n_rows, geometry.width, *part.shape[1:])
    elif how == "time_major":
        part = part.transpose(0, 1)
    elif how == "channels_first":
        part = part.movedim(-1, 1)
    return [part[row, geometry.places(row)] for row in range(n_rows)]


def _unpacked(sequence: PackedSequence) -> list[Tensor]:
    """Rows in the order in which they were given, as far as the sequence knows it."""
    padded, lengths = pad_packed_sequence(sequence, batch_first=True)
    return [padded[row, :length] for row, length in enumerate(lengths.tolist())]


def worst_difference(mine: Tensor, theirs: Tensor) -> float:
    """Largest |difference|; equal infinities and NaN on both sides are equal, any other of them differs by inf."""
    if mine.shape != theirs.shape:
        return torch.inf
    if mine.numel() == 0:
        return 0.0
    return float(differences(mine, theirs).max())


def differences(mine: Tensor, theirs: Tensor) -> Tensor:
    """|difference| in float64, elementwise, with the same rule; a NaN difference becomes inf."""
    mine, theirs = mine.detach().double(), theirs.detach().double()
    same = (mine == theirs) | (mine.isnan() & theirs.isnan())
    return (mine - theirs).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(same, 0.0)
