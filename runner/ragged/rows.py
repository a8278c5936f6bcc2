"""`Rows`: where the rows of a batch start and end, and the index maps between the packed and the padded layout.

Shapes: B rows, N tokens in all, T the padded width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray

T = TypeVar("T")

NON_BLOCKING_BYTES = 2**16  # bytes that CUDA copies from pageable memory without blocking (CUDA programming guide)


class Rows:
    """The start and end of each row of a batch. A batch has one `Rows`, shared by all of its features and layers.

    The lengths are known on the host, so no index map synchronises with the device. Maps are made when first used.

    Args:
        lengths: (B,) number of tokens of each row, at least 0.
        width: T of the padded layout, at least the longest length (default: the longest length, at least 1).

    Attributes:
        seeds: (B,) int64 dropout seed of each row; None: all rows draw from one generator.
        source: (N,) on the host, index of each token in the rows that these were selected from (`select_spans`).
        stepwise: recurrent layers step through time instead of calling a fused kernel.
        width_multiple: the strategy rounds padded widths up to a multiple of it, also those of a row's pieces.
        on_host: the host knows the lengths; false only while a model is traced (`runner.ragged.traced`).
    """

    on_host = True

    def __init__(self, lengths: IntArray, device: torch.device, width: int | None = None) -> None:
        self.host_lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        self.device = device
        self.n_rows = len(self.host_lengths)
        self.n_tokens = int(self.host_lengths.sum())
        self.max_len = int(self.host_lengths.max(initial=0))
        self.width = max(1, self.max_len) if width is None else width
        self.seeds: Tensor | None = None
        self.source: IntArray | None = None
        self.stepwise = False
        self.width_multiple = 1
        self._cache: dict[Hashable, Any] = {}
        if self.n_rows and int(self.host_lengths.min()) < 0:
            raise ValueError(f"lengths: a row has length {int(self.host_lengths.min())}; lengths must be at least 0")
        if self.width < max(1, self.max_len):
            raise ValueError(f"width {self.width} is less than {max(1, self.max_len)}; it must hold the longest row")

    def is_rectangle(self, width: int) -> bool:
        """Return whether all rows have `width` tokens: a rectangle of that width holds no padding."""
        return self.n_tokens == self.n_rows * width

    def send(self, array: npt.NDArray[np.generic]) -> Tensor:
        """Copy an array to the device of the index maps without blocking the host."""
        return copy_to_device(array, self.device)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return `compute()`, called only once for each key: for index maps that layers of a stack share."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value

    @cached_property
    def host_offsets(self) -> IntArray:
        """(B+1,) the packed index at which each row starts; the last entry is N."""
        offsets = np.zeros(self.n_rows + 1, dtype=np.int64)
        np.cumsum(self.host_lengths, out=offsets[1:])
        return offsets

    @cached_property
    def offsets(self) -> Tensor:
        """(B+1,) the packed index at which each row starts, and N, on the device."""
        return self.send(self.host_offsets)

    @cached_property
    def lengths(self) -> Tensor:
        """(B,) the number of tokens of each row, on the device."""
        return self.send(self.host_lengths)

    @cached_property
    def row(self) -> Tensor:
        """(N,) the row of each token."""
        return self.send(np.repeat(np.arange(self.n_rows), self.host_lengths))

    @cached_property
    def position(self) -> Tensor:
        """(N,) the position of each token in its row, from 0."""
        return self.send(self.host_position)

    @cached_property
    def host_position(self) -> IntArray:
        """(N,) `position` on the host."""
        return np.arange(self.n_tokens) - np.repeat(self.host_offsets[:-1], self.host_lengths)

    @cached_property
    def flat(self) -> Tensor:
        """(N,) the index of each token in the flattened padded layout, (B*T)."""
        return self.send(self.host_flat)

    @cached_property
    def host_flat(self) -> IntArray:
        """(N,) `flat` on the host."""
        return np.repeat(np.arange(self.n_rows) * self.width, self.host_lengths) + self.host_position

    @cached_property
    def mask(self) -> Tensor:
        """(B, T) true at real tokens."""
        return torch.arange(self.width, device=self.device) < self.lengths[:, None]

    @cached_property
    def packed_reversal(self) -> Tensor:
        """(N,) packed indices that reverse each row; applying them twice restores the order."""
        ends = np.repeat(self.host_offsets[1:], self.host_lengths)
        return self.send(ends - 1 - self.host_position)

    @cached_property
    def padded_reversal(self) -> Tensor:
        """(B, T) column indices that reverse each row within its length and leave padding in place."""
        step = torch.arange(self.width, device=self.device)
        return torch.where(self.mask, self.lengths[:, None] - 1 - step, step)

    @cached_property
    def time_major(self) -> TimeMajor:
        """The token order of `torch.nn.utils.rnn.PackedSequence`."""
        lengths = self.host_lengths
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        rank = np.empty(self.n_rows, dtype=np.int64)
        rank[order] = np.arange(len(order))
        tokens = np.lexsort((np.repeat(rank, lengths), self.host_position))
        inverse = np.empty_like(tokens)
        inverse[tokens] = np.arange(len(tokens))
        # the rows that run at step t are those longer than t: a cumulative count of lengths, from the longest
        running = np.cumsum(np.bincount(lengths, minlength=self.max_len + 1)[::-1])[::-1][1:]
        batch_sizes = torch.from_numpy(running.astype(np.int64).copy())
        return TimeMajor(self.send(tokens), self.send(inverse), batch_sizes, self.send(order))

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """(R,) packed indices of the first and the last token of each row that is not empty, longest row first."""
        order = self.time_major.row_order
        return self.offsets.index_select(0, order), self.offsets.index_select(0, order + 1) - 1

    @cached_property
    def single(self) -> Rows:
        """Rows of length 1, for vectors pooled from these rows."""
        return Rows(np.ones(self.n_rows, dtype=np.int64), self.device).with_seeds(self.seeds)

    def with_seeds(self, seeds: Tensor | None) -> Rows:
        """Return the same rows with a dropout seed for each row, (B,) int64, or without seeds."""
        if seeds is not None and (seeds.shape != (self.n_rows,) or seeds.dtype != torch.int64):
            raise ValueError(f"seeds have shape {tuple(seeds.shape)} and {seeds.dtype}; need ({self.n_rows},) of int64")
        rows = copy.copy(self)
        rows.__dict__.pop("single", None)
        rows.seeds = seeds
        return rows

    def step_by_step(self) -> Rows:
        """Return the same rows, `stepwise`."""
        rows = copy.copy(self)
        rows.stepwise = True
        return rows

    def to(self, device: torch.device) -> Rows:
        """Return the same rows with index maps on `device`."""
        if device == self.device:
            return self
        rows = Rows(self.host_lengths, device, self.width)
        rows.seeds, rows.stepwise = None if self.seeds is None else self.seeds.to(device), self.stepwise
        rows.width_multiple = self.width_multiple
        return rows


@dataclass(frozen=True)
class TimeMajor:
    """Rows sorted from long to short and read by time step: first every row's first token, then every second, ..."""

    tokens: Tensor  # (N,) packed index of each token in time-major order
    inverse: Tensor  # (N,) time-major index of each packed token
    batch_sizes: Tensor  # (L,) number of rows still running at each of the L steps, on the host; empty rows never run
    row_order: Tensor  # (R,) the rows with at least one token, longest first


def copy_to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array to a device without blocking the host; large arrays need pinned memory for that."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda" and array.nbytes > NON_BLOCKING_BYTES:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def select_rows(rows: Rows, indices: IntArray, width: int | None = None) -> tuple[Rows, Tensor]:
    """Return the `Rows` of the chosen rows, with their seeds, and the packed index of each of their tokens."""
    selected, tokens = select_spans(rows.host_offsets[indices], rows.host_lengths[indices], rows.device, width)
    if rows.seeds is not None:
        selected.seeds = rows.seeds.index_select(0, rows.send(np.ascontiguousarray(indices)))
    return selected, tokens


def select_spans(
    starts: IntArray, lengths: IntArray, device: torch.device, width: int | None = None
) -> tuple[Rows, Tensor]:
    """Return the `Rows` of spans of `lengths` (B,) packed tokens from `starts` (B,), and the index of each token."""
    rows = Rows(lengths, device, width)
    rows.source = np.repeat(starts - rows.host_offsets[:-1], lengths) + np.arange(rows.n_tokens)
    return rows, rows.send(rows.source)
