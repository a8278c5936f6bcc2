"""`Ragged`: rows of different lengths in one tensor, packed (no padding) or padded.

Shapes: B rows, N tokens in all, T the padded width, `*` any trailing dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.rows import Rows, select_rows

Layout = Literal["packed", "padded"]


@dataclass(frozen=True)
class Ragged:
    """A value for each token of each row.

    `host` (N,) is a copy of the ids on the host, if they were sent from there (`to`) and only selected since.
    """

    values: Tensor  # (N, *) if packed, (B, T, *) if padded. Values at padded positions are arbitrary.
    rows: Rows  # where rows start and end; shared by everything with the same rows
    layout: Layout
    host: npt.NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        head = (self.rows.n_tokens,) if self.layout == "packed" else (self.rows.n_rows, self.rows.width)
        if tuple(self.values.shape[: len(head)]) != head:
            raise ValueError(f"{self.layout} values have shape {tuple(self.values.shape)}; their rows need {head}")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> Ragged:
        """Return packed values on the CPU from one list of numbers per row (for tests and examples)."""
        rows = Rows(np.array([len(row) for row in lists], dtype=np.int64), torch.device("cpu"))
        return cls(torch.tensor([value for row in lists for value in row], dtype=dtype), rows, "packed")

    @property
    def lengths(self) -> Tensor:
        """(B,) the number of tokens of each row."""
        return self.rows.lengths

    @property
    def padded_tokens(self) -> int:
        """The number of padded positions in memory: 0 if packed."""
        return 0 if self.layout == "packed" else self.rows.n_rows * self.rows.width - self.rows.n_tokens

    @property
    def prefers_packed(self) -> bool:
        """True if layers compute faster on packed tokens, whatever the layout: on a CPU, unless they are traced."""
        return self.values.device.type == "cpu" and self.rows.on_host

    def mask(self) -> Tensor:
        """Return a mask that is true at real tokens: (B, T) if padded, all true (N,) if packed."""
        return self.rows.mask if self.layout == "padded" else self.rows.mask.new_ones(self.rows.n_tokens)

    def with_values(self, values: Tensor) -> Ragged:
        """Return other values for the same rows in the same layout."""
        return Ragged(values, self.rows, self.layout)

    def map(self, function: Callable[[Tensor], Tensor]) -> Ragged:
        """Apply a function that treats each token independently, so that it need not know the layout."""
        return self.with_values(function(self.values))

    def tokens(self) -> Tensor:
        """Return the values of real tokens in either layout, (N, *)."""
        if self.layout == "packed":
            return self.values
        return self.values.flatten(0, 1).index_select(0, self.rows.flat)

    def on_host(self) -> npt.NDArray[np.integer]:
        """Return the ids of real tokens, (N,), without synchronising; a ValueError if the host has no copy of them."""
        if self.host is not None:
            return self.host
        if self.values.device.type != "cpu":
            raise ValueError(f"these ids are on {self.values.device} only; keep a copy on the host (`Ragged.to`)")
        return self.tokens().numpy()

    def pack(self) -> Ragged:
        """Return the packed layout, (N, *)."""
        return self if self.layout == "packed" else Ragged(self.tokens(), self.rows, "packed", self.host)

    def pad(self, fill: float = 0.0) -> Ragged:
        """Return the padded layout, (B, T, *), with `fill` in the padding."""
        if self.layout == "padded":
            return replace(self, values=self.filled(fill))
        trailing = self.values.shape[1:]
        padded = self.values.new_full((self.rows.n_rows * self.rows.width, *trailing), fill)
        padded.index_copy_(0, self.rows.flat, self.values)
        return Ragged(padded.view(self.rows.n_rows, self.rows.width, *trailing), self.rows, "padded", self.host)

    def filled(self, fill: float) -> Tensor:
        """Return the values with `fill` at padded positions: selected, never multiplied, since NaN * 0 is NaN."""
        if self.layout == "packed":
            return self.values
        mask = self.rows.mask.view(*self.rows.mask.shape, *[1] * (self.values.dim() - 2))
        return self.values.masked_fill(~mask, fill)

    def select(self, indices: IntArray, width: int | None = None) -> Ragged:
        """Return the chosen rows in that order, packed, by index arithmetic without a loop over rows or tokens."""
        return self.pack().select_by(*select_rows(self.rows, indices, width))

    def select_by(self, rows: Rows, tokens: Tensor) -> Ragged:
        """Select by the result of `select_rows`, computed once for all features with the same rows."""
        host = None if self.host is None or rows.source is None else self.host[rows.source]
        return Ragged(self.values.index_select(0, tokens), rows, "packed", host)

    def to(self, device: torch.device, rows: Rows | None = None) -> Ragged:
        """Return the values on `device`, with the given `rows` if shared. Ids that leave the host keep a copy there."""
        leaves = self.values.device.type == "cpu" and device.type != "cpu" and not self.values.is_floating_point()
        host = self.on_host() if leaves else self.host
        return Ragged(self.values.to(device, non_blocking=True), rows or self.rows.to(device), self.layout, host)
