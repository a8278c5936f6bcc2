"""The padding of an audit's batches: the argument of a collate function, with helpers that pad accordingly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.audit.tracing.observe import HUGE, Fill


@dataclass(frozen=True)
class Padding:
    """The required amount and content of a batch's padding; `stack` applies both in most collate functions.

    Attributes:
        widen: padded sizes, as a multiple of what the longest example needs.
        fill: content of the padding: `neutral` (zeros), `other` finite values, `huge` (1e30) or `nan`.
        left: padding goes before the tokens.
    """

    widen: int = 1
    fill: Fill = "neutral"
    left: bool = False

    def width(self, longest: int) -> int:
        """Return the padded size for a longest example of `longest` tokens."""
        return max(1, longest) * self.widen

    def stack(self, rows: Sequence[Tensor], pad: int | None = None) -> Tensor:
        """Stack rows of (length, *) to (B, width, *), padding every dimension in which they differ.

        The padding of floats holds `fill`. Integers cannot be NaN: unless `fill` is neutral, their padding holds values
        of the rows themselves.

        Args:
            rows: one tensor for each example.
            pad: constant content of the padding, for a module that recognises padding by this value.
        """
        dims = max(row.dim() for row in rows)
        sizes = [max(row.shape[dim] for row in rows) for dim in range(dims)]
        # trailing dimensions of integers of two dimensions are lengths too: characters of words
        inner = rows[0].dim() == 2 and not rows[0].is_floating_point()
        uneven = [dim == 0 or len({row.shape[dim] for row in rows}) > 1 or inner for dim in range(dims)]
        shape = [self.width(size) if wide else size for size, wide in zip(sizes, uneven, strict=True)]
        stacked = self._filled(rows, (len(rows), *shape)) if pad is None else rows[0].new_full((len(rows), *shape), pad)
        for place, row in enumerate(rows):
            first = slice(shape[0] - len(row), None) if self.left else slice(0, len(row))
            stacked[(place, first, *(slice(0, size) for size in row.shape[1:]))] = row
        return stacked

    def mask(self, lengths: Sequence[int]) -> Tensor:
        """Return (B, width), true at real tokens."""
        place = torch.arange(self.width(max(lengths, default=0)))
        count = torch.tensor(list(lengths))[:, None]
        return place >= len(place) - count if self.left else place < count

    def _filled(self, rows: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
        pool = torch.cat([row.flatten() for row in rows])
        if self.fill != "neutral" and not pool.is_floating_point() and len(pool):
            # Random values of the rows themselves are valid ids, drawn the same way in each run.
            return pool[torch.randint(len(pool), shape, generator=torch.Generator().manual_seed(len(pool)))]
        values = {"neutral": 0.0, "other": 1.25, "huge": HUGE, "nan": float("nan")}
        return torch.full(shape, values[self.fill] if pool.is_floating_point() else 0, dtype=rows[0].dtype)
