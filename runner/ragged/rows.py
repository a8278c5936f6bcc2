"""`Rows`: where the rows of a batch begin and end, and the index maps between the packed and the padded layout.

Shapes: B rows, N tokens in all, T the padded width.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray

WITHOUT_WAITING = 2**16  # bytes that CUDA takes from pageable memory at once (its guide); for more it may wait


class Rows:
    """Where the rows of a batch begin and end. One per batch, shared by all of its features and layers.

    The lengths are known on the host, so no index map ever waits for the device; each map is made once, when
    it is first asked for.

    Args:
        lengths: (B,) number of tokens of each row, at least 0.
        device: where the index maps are to lie.
        width: T of the padded layout; at least the longest length (default: exactly that, and at least 1).

    Attributes:
        seeds: (B,) int64 from which each row draws its own dropout, or None: rows draw from one generator.
        source: (N,) on the host: which token of the rows that these were selected from (`spans`) each one is, or None.
        stepped: recurrent layers are to step their cells through time instead of calling a fused kernel.
        kept: what layers work out of the lengths and keep for the next layer.

    Raises:
        ValueError: a negative length, or a width smaller than the longest row.
    """

    def __init__(self, lengths: IntArray, device: torch.device, width: int | None = None) -> None:
        self.host_lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        self.device = device
        self.n_rows = len(self.host_lengths)
        self.n_tokens = int(self.host_lengths.sum())
        self.max_len = int(self.host_lengths.max(initial=0))
        self.width = max(1, self.max_len) if width is None else width
        self.seeds: Tensor | None = None
        self.source: IntArray | None = None
        self.stepped = False
        self.kept: dict[Hashable, Any] = {}
        if self.n_rows and int(self.host_lengths.min()) < 0:
            raise ValueError(f"a row has length {int(self.host_lengths.min())}; lengths must be at least 0")
        if self.width < max(1, self.max_len):
            raise ValueError(f"width {self.width} is less than the longest row ({self.max_len})")

    def _send(self, array: npt.NDArray[np.generic]) -> Tensor:
        return sent(array, self.device)

    @cached_property
    def host_offsets(self) -> IntArray:
        """(B+1,) where each row begins among the N tokens; the last entry is N."""
        return np.concatenate(([0], np.cumsum(self.host_lengths)))

    @cached_property
    def offsets(self) -> Tensor:
        """(B+1,) `host_offsets` on the device."""
        return self._send(self.host_offsets)

    @cached_property
    def lengths(self) -> Tensor:
        """(B,) on the device."""
        return self._send(self.host_lengths)

    @cached_property
    def row(self) -> Tensor:
        """(N,) the row that each token belongs to."""
        return self._send(np.repeat(np.arange(self.n_rows), self.host_lengths))

    @cached_property
    def position(self) -> Tensor:
        """(N,) the place of each token in its row, from 0."""
        return self._send(self.host_position)

    @cached_property
    def host_position(self) -> IntArray:
        """(N,) `position` on the host."""
        return np.arange(self.n_tokens) - np.repeat(self.host_offsets[:-1], self.host_lengths)

    @cached_property
    def flat(self) -> Tensor:
        """(N,) where each token lies in the flattened (B*T) padded layout."""
        return self._send(self.host_flat)

    @cached_property
    def host_flat(self) -> IntArray:
        """(N,) `flat` on the host."""
        starts = np.arange(self.n_rows) * self.width
        return np.repeat(starts, self.host_lengths) + self.host_position

    @cached_property
    def mask(self) -> Tensor:
        """(B, T) true at real tokens."""
        return torch.arange(self.width, device=self.device) < self.lengths[:, None]

    @cached_property
    def packed_reversal(self) -> Tensor:
        """(N,) reads each row from its own end; an involution."""
        ends = np.repeat(self.host_offsets[1:], self.host_lengths)
        return self._send(ends - 1 - self.host_position)

    @cached_property
    def padded_reversal(self) -> Tensor:
        """(B, T) column indices that reverse each row within its own length and leave padding in place."""
        step = torch.arange(self.width, device=self.device)
        return torch.where(self.mask, self.lengths[:, None] - 1 - step, step)

    @cached_property
    def time_major(self) -> TimeMajor:
        """The order in which `torch.nn.utils.rnn.PackedSequence` wants the N tokens."""
        return TimeMajor.of(self)

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """(R,) packed indices of the first and of the last token of each row that is not empty, longest row first."""
        order = self.time_major.row_order
        return self.offsets.index_select(0, order), self.offsets.index_select(0, order + 1) - 1

    @cached_property
    def single(self) -> Rows:
        """One place a row, for what is pooled from it."""
        return Rows(np.ones(self.n_rows, dtype=np.int64), self.device).with_seeds(self.seeds)

    def with_seeds(self, seeds: Tensor | None) -> Rows:
        """The same rows, of which each draws its dropout from its own seed, (B,) int64.

        Raises:
            ValueError: not one int64 a row.
        """
        if seeds is not None and (seeds.shape != (self.n_rows,) or seeds.dtype != torch.int64):
            raise ValueError(f"seeds are {tuple(seeds.shape)} of {seeds.dtype}; need ({self.n_rows},) of int64")
        rows = copy.copy(self)
        rows.__dict__.pop("single", None)
        rows.seeds = seeds
        return rows

    def step_by_step(self) -> Rows:
        """The same rows, `stepped`."""
        rows = copy.copy(self)
        rows.stepped = True
        return rows

    def to(self, device: torch.device) -> Rows:
        if device == self.device:
            return self
        rows = Rows(self.host_lengths, device, self.width)
        rows.seeds, rows.stepped = None if self.seeds is None else self.seeds.to(device), self.stepped
        return rows


@dataclass(frozen=True)
class TimeMajor:
    """Rows sorted from long to short and read across: first every row's first token, then every second token, ...

    Attributes:
        tokens: (N,) packed token index for each place of the time-major order.
        inverse: (N,) the way back.
        batch_sizes: (T',) on the host: how many rows are still running at each step; empty rows never run.
        row_order: (R,) the rows of at least one token, longest first.
    """

    tokens: Tensor
    inverse: Tensor
    batch_sizes: Tensor
    row_order: Tensor

    @classmethod
    def of(cls, rows: Rows) -> TimeMajor:
        lengths = rows.host_lengths
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        rank = np.empty(rows.n_rows, dtype=np.int64)
        rank[order] = np.arange(len(order))
        token_rank = np.repeat(rank, lengths)
        tokens = np.lexsort((token_rank, rows.host_position))
        inverse = np.empty_like(tokens)
        inverse[tokens] = np.arange(len(tokens))
        # at step t run the rows longer than t: count lengths from the long end
        running = np.cumsum(np.bincount(lengths, minlength=rows.max_len + 1)[::-1])[::-1][1:]
        return cls(
            tokens=rows._send(tokens),
            inverse=rows._send(inverse),
            batch_sizes=torch.from_numpy(running.astype(np.int64).copy()),
            row_order=rows._send(order),
        )


def sent(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """The array on a device, which the host does not wait for; what is large for that goes by way of pinned memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda" and array.nbytes > WITHOUT_WAITING:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def choose(rows: Rows, chosen: IntArray, width: int | None = None) -> tuple[Rows, Tensor]:
    """The `Rows` of the chosen rows, with their seeds, and the packed index of each of their tokens."""
    selected, tokens = spans(rows.host_offsets[chosen], rows.host_lengths[chosen], rows.device, width)
    if rows.seeds is not None:
        selected.seeds = rows.seeds.index_select(0, rows._send(np.ascontiguousarray(chosen)))
    return selected, tokens


def spans(starts: IntArray, lengths: IntArray, device: torch.device, width: int | None = None) -> tuple[Rows, Tensor]:
    """The `Rows` of runs of `lengths` (B,) packed tokens that begin at `starts` (B,), and the index of each token."""
    rows = Rows(lengths, device, width)
    rows.source = np.repeat(starts - rows.host_offsets[:-1], lengths) + np.arange(rows.n_tokens)
    return rows, rows._send(rows.source)
