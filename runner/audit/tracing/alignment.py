"""The split of a module's output into examples, from shapes alone.

Shapes: B examples of `lengths`, N tokens in all, T the padded width. A single shape may have several readings (where
B = T, for example); the reading that fits several runs with different B, T and N is the module's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from runner.ragged.ragged import Ragged

Part = Tensor | Ragged | PackedSequence
# possible readings of a part, the likelier first
READINGS = (
    *("ragged", "packed", "padded", "time_major", "channels_first", "flat", "tokens"),
    *("rows", "examples", "states", "steps", "one_row"),
)
PADDED = ("padded", "time_major", "channels_first", "flat")  # readings with padding


@dataclass(frozen=True)
class Geometry:
    """The layout of the examples of one run."""

    lengths: tuple[int, ...]  # (B,) number of tokens of each example, or of each of its texts
    width: int  # padded width T, at least 1
    left: bool = False  # padding comes before the tokens
    texts: int = 1  # texts of each example, which are neighbouring rows; 2 for pairs that are encoded apart

    def places(self, row: int) -> slice:
        """Return the slice of the T positions that holds the tokens of `row`."""
        length = self.lengths[row]
        return slice(self.width - length, self.width) if self.left else slice(0, length)


def parts(output: object) -> list[Part]:
    """Return the tensors of an output in order, from any nesting of tuples, lists and dicts."""
    if isinstance(output, Part):
        return [output]
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [part for item in items for part in parts(item)]


def possible(part: Part, geometry: Geometry) -> set[str]:
    """Return the readings that the part's shape allows in this run."""
    if isinstance(part, PackedSequence):
        return {"packed"}
    if isinstance(part, Ragged):
        if tuple(part.rows.host_lengths.tolist()) == geometry.lengths:
            return {"ragged"}
        part = part.values
    shape, n_rows, width = tuple(part.shape), len(geometry.lengths), geometry.width
    first, second = (*shape, -1, -1)[:2]
    fits = {
        "padded": first == n_rows and second == width,
        "time_major": first == width and second == n_rows,
        "channels_first": len(shape) >= 3 and first == n_rows and shape[-1] == width,
        "flat": first == n_rows * width,
        "tokens": first == sum(geometry.lengths),
        "rows": first == n_rows,
        "examples": geometry.texts > 1 and first == n_rows // geometry.texts,
        "states": len(shape) == 3 and second == n_rows,
        "steps": first == width,
        "one_row": len(shape) >= 2 and first == 1 and second == sum(geometry.lengths),
    }
    return {reading for reading, is_possible in fits.items() if is_possible}


def reading(runs: Iterable[tuple[Part, Geometry]]) -> str | None:
    """Return the likeliest reading that all runs allow, or None."""
    allowed: set[str] = set(READINGS)
    for part, geometry in runs:
        allowed &= possible(part, geometry)
    return next((name for name in READINGS if name in allowed), None)


def split(part: Part, how: str, geometry: Geometry) -> list[Tensor]:
    """Split a part into one tensor per example: (length, *), or (*) where it has one value per example.

    Those of the texts of an example are joined to one tensor, (sum of lengths, *) or (texts, *).

    Raises:
        ValueError: the part's shape does not allow the reading `how`.
    """
    pieces = _split_rows(part, how, geometry)
    if geometry.texts == 1 or how == "examples":
        return pieces
    join = torch.stack if how in ("rows", "states") else torch.cat
    return [join(pieces[first : first + geometry.texts]) for first in range(0, len(pieces), geometry.texts)]


def _split_rows(part: Part, how: str, geometry: Geometry) -> list[Tensor]:
    allowed = possible(part, geometry)
    if how not in allowed:
        raise ValueError(f"a part of the output cannot be read as {how!r}; its shape allows {sorted(allowed)}")
    if isinstance(part, Ragged):
        if how == "ragged":
            return list(torch.split(part.tokens(), list(geometry.lengths)))
        part = part.values
    if isinstance(part, PackedSequence):
        # in their original order, as far as the sequence records it
        padded, lengths = pad_packed_sequence(part, batch_first=True)
        return [padded[row, :length] for row, length in enumerate(lengths.tolist())]
    if how in ("tokens", "one_row"):
        return list(torch.split(part[0] if how == "one_row" else part, list(geometry.lengths)))
    if how in ("rows", "examples", "states"):
        return list(part.transpose(0, 1) if how == "states" else part)
    places = enumerate(map(geometry.places, range(len(geometry.lengths))))
    if how == "steps":
        return [part[place] for _, place in places]
    padded = rows_first(part, how, geometry)
    return [padded[row, place] for row, place in places]


def rows_first(values: Tensor, how: str, geometry: Geometry) -> Tensor:
    """Return a view (B, T, *) of values in a `PADDED` reading."""
    if how == "flat":
        return values.view(len(geometry.lengths), geometry.width, *values.shape[1:])
    if how == "time_major":
        return values.transpose(0, 1)
    return values.movedim(-1, 1) if how == "channels_first" else values


def worst_difference(value: Tensor, expected: Tensor) -> float:
    """Return the largest |difference| (see `differences`), infinite for different shapes, 0 for empty tensors."""
    if value.shape != expected.shape:
        return torch.inf
    if value.numel() == 0:
        return 0.0
    return float(differences(value, expected).max())


def differences(value: Tensor, expected: Tensor) -> Tensor:
    """Return the elementwise |difference| in float64.

    Equal infinities, and NaN on both sides, differ by 0; any other infinity or NaN differs by infinity.
    """
    value, expected = value.detach().double(), expected.detach().double()
    same = (value == expected) | (value.isnan() & expected.isnan())
    return (value - expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(same, 0.0)
