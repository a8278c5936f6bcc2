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
from runner.ragged.rows import Rows, choose

Layout = Literal["packed", "padded"]


@dataclass(frozen=True)
class Ragged:
    """Values for each token of each row.

    Attributes:
        values: (N, *) if packed, (B, T, *) if padded. What stands in padded places means nothing.
        rows: where rows begin and end; shared with all that has the same rows.
        layout: which of the two.
        host: (N,) the same ids on the host too, where they were sent from there (`to`) and selected since; else None.
    """

    values: Tensor
    rows: Rows
    layout: Layout
    host: npt.NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        head = (self.rows.n_tokens,) if self.layout == "packed" else (self.rows.n_rows, self.rows.width)
        if tuple(self.values.shape[: len(head)]) != head:
            raise ValueError(f"{self.layout} values have shape {tuple(self.values.shape)}; their rows need {head}")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> Ragged:
        """Packed, on the CPU, from one list of numbers a row (for tests and examples)."""
        rows = Rows(np.array([len(one) for one in lists], dtype=np.int64), torch.device("cpu"))
        return cls(torch.tensor([value for one in lists for value in one], dtype=dtype), rows, "packed")

    @property
    def offsets(self) -> Tensor:
        return self.rows.offsets

    @property
    def lengths(self) -> Tensor:
        return self.rows.lengths

    @property
    def max_len(self) -> int:
        return self.rows.max_len

    @property
    def padded_tokens(self) -> int:
        """Places of padding in memory: 0 when packed."""
        return 0 if self.layout == "packed" else self.rows.n_rows * self.rows.width - self.rows.n_tokens

    def mask(self) -> Tensor:
        """(B, T) true at real tokens, or all true (N,) when packed."""
        return self.rows.mask if self.layout == "padded" else self.rows.mask.new_ones(self.rows.n_tokens)

    def with_values(self, values: Tensor) -> Ragged:
        """Other values for the same rows in the same layout."""
        return Ragged(values, self.rows, self.layout)

    def map(self, function: Callable[[Tensor], Tensor]) -> Ragged:
        """Apply a function that works on each token by itself; it need not know the layout."""
        return self.with_values(function(self.values))

    def tokens(self) -> Tensor:
        """(N, *) the values of real tokens, whichever the layout."""
        if self.layout == "packed":
            return self.values
        return self.values.flatten(0, 1).index_select(0, self.rows.flat)

    def on_host(self) -> npt.NDArray[np.integer]:
        """(N,) the ids of real tokens, without waiting for a device.

        Raises:
            ValueError: they lie on a device alone.
        """
        if self.host is not None:
            return self.host
        if self.values.device.type != "cpu":
            raise ValueError(f"these ids lie on {self.values.device} alone; the host has no copy of them")
        return self.tokens().numpy()

    def pack(self) -> Ragged:
        """The packed layout: (N, *)."""
        return self if self.layout == "packed" else Ragged(self.tokens(), self.rows, "packed", self.host)

    def pad(self, fill: float = 0.0) -> Ragged:
        """The padded layout: (B, T, *), `fill` in the padding."""
        if self.layout == "padded":
            return replace(self, values=self.filled(fill))
        trailing = self.values.shape[1:]
        padded = self.values.new_full((self.rows.n_rows * self.rows.width, *trailing), fill)
        padded.index_copy_(0, self.rows.flat, self.values)
        return Ragged(padded.view(self.rows.n_rows, self.rows.width, *trailing), self.rows, "padded", self.host)

    def filled(self, fill: float) -> Tensor:
        """The values with `fill` selected (never multiplied) into padded places: no value or gradient leaks."""
        if self.layout == "packed":
            return self.values
        mask = self.rows.mask.view(*self.rows.mask.shape, *[1] * (self.values.dim() - 2))
        return self.values.masked_fill(~mask, fill)

    def select(self, chosen: IntArray, width: int | None = None) -> Ragged:
        """The chosen rows, in that order, packed: index arithmetic only, no loop over rows or tokens."""
        return self.pack().select_by(*choose(self.rows, chosen, width))

    def select_by(self, rows: Rows, tokens: Tensor) -> Ragged:
        """`select` with the result of `choose`, which features with the same rows share."""
        host = None if self.host is None or rows.source is None else self.host[rows.source]
        return Ragged(self.values.index_select(0, tokens), rows, "packed", host)

    def to(self, device: torch.device, rows: Rows | None = None) -> Ragged:
        """On `device`, with `rows` where those are shared; of ids that leave the host, it keeps a copy there."""
        leaves = self.values.device.type == "cpu" and device.type != "cpu" and not self.values.is_floating_point()
        host = self.on_host() if leaves else self.host
        return Ragged(self.values.to(device, non_blocking=True), rows or self.rows.to(device), self.layout, host)
