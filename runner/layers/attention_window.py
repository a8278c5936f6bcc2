"""The keys that a token attends to: those of its own row, and those kept from earlier windows of the row's text.

Shapes: B rows, N tokens in all, T the padded width, P places of the past.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.layers.moves import move_places
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows, select_rows
from runner.ragged.shapes import block_ends


def latest_indices(rows: Rows, count: int, past: IntArray, places: int, own: IntArray) -> Tensor:
    """Return the indices of the last `count` tokens of each row, in order, (B * count,).

    They are the end of the row's own tokens, preceded by the end of its past if the row has fewer than `count`. If past
    and row together have fewer, the index of the first place of the past is repeated; values there are meaningless.

    Args:
        past: (B,) index at which the past of each row starts. It fills `places` places and ends with the latest token.
        own: (B,) index at which the row's own tokens start.
    """
    # position of each kept token relative to the row's own first token: negative positions are in the past
    place = rows.host_lengths[:, None] - np.arange(count, 0, -1)
    index = np.where(place >= 0, own[:, None] + place, past[:, None] + np.maximum(places + place, 0))
    return rows.send(index.ravel())


class AttentionWindow:
    """The keys that each query of a batch attends to ("sees"), shared by all layers of a stack.

    There are K = P + T keys per row: the P places of its past, then the T places of the padded row. The past is
    right-aligned: its latest token is always at place P - 1, so that the distance of two places is the distance of
    their tokens in the text, for rows with long and with short histories alike.

        row with 2 remembered tokens, 3 own ones, P = 4, T = 4:   . . p p | x x x .

    Args:
        causal: a query sees no later keys than its own; needed for a past.
        memory: a query sees at most this many keys before its own and, if not causal, after it; None: all of them.
        n_seen: (B,) number of earlier tokens of each row, the last of which are in the past; None: there is no past.
    """

    def __init__(self, rows: Rows, causal: bool, memory: int | None, n_seen: IntArray | None, places: int) -> None:
        if not causal and n_seen is not None:
            raise ValueError("only causal attention has a state; use causal=True or give no state")
        self.rows, self.causal, self.memory, self.places = rows, causal, memory, places
        self.keys = places + rows.width
        self.n_seen = n_seen
        self._biases: dict[torch.dtype, Tensor] = {}

    @cached_property
    def past_lengths(self) -> IntArray:
        """The number of earlier tokens of each row that are in its past, (B,)."""
        if self.n_seen is None:
            return np.zeros(self.rows.n_rows, dtype=np.int64)
        return np.minimum(self.n_seen, self.places)

    @cached_property
    def is_triangle(self) -> bool:
        """True if query t sees exactly keys 0 to t: kernels have this mask built in."""
        return self.causal and self.places == 0 and not self._slides

    @property
    def _slides(self) -> bool:
        """True if `memory` hides any key: the first key is too far back for the last query."""
        return self.memory is not None and (not self.rows.on_host or self.keys - 1 > self.memory)

    @cached_property
    def mask(self) -> Tensor | None:
        """A bool mask, true where a query sees a key: (T, K), (B, 1, T, K) or (B, 1, 1, K).

        None if every query sees every key. Queries in padding see at least one key, since a softmax over none is NaN;
        their output is never read.
        """
        # The mask is as small as possible: per-row masks (B, T, K) are needed only where histories differ. Padding keys
        # of a causal row need no mask, since they come after every real query; unused places of the past do.
        if not self.causal:
            return self._both_ways()
        full = self.n_seen is None or self.rows.n_rows == 0 or int(self.past_lengths.min()) == self.places
        if full and self.rows.width == 1 and not self._slides:
            return None
        key = torch.arange(self.keys, device=self.rows.device)
        query = key[self.places :, None]
        visible = key <= query
        if self._slides and self.memory is not None:
            visible = visible & (key >= query - self.memory)
        if full:
            return visible
        first = self.rows.send(self.places - self.past_lengths)
        return visible & (key >= first[:, None, None, None])

    def bias(self, dtype: torch.dtype) -> Tensor:
        """Return what to add to scores in place of the mask: 0 where a query sees a key, -inf elsewhere."""
        if dtype not in self._biases:
            mask = self.mask
            assert mask is not None
            zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
            self._biases[dtype] = zeros.masked_fill_(~mask, -torch.inf)
        return self._biases[dtype]

    def _both_ways(self) -> Tensor | None:
        """Return `mask` if queries also see later keys: all keys of the row, or those at most `memory` away."""
        real = length_mask(self.rows)
        if not self._slides or self.memory is None:
            return real
        place = torch.arange(self.keys, device=self.rows.device)
        near = (place - place[:, None]).abs() <= self.memory
        if real is None:
            return near
        # queries in padding far behind their row would otherwise see no key
        return (near & real) | torch.eye(self.keys, dtype=torch.bool, device=self.rows.device)

    def rectangles(self, x: Ragged) -> list[tuple[AttentionWindow, Tensor]]:
        """Return rows of (length, *) as padded rectangles, (B', T', *), each with the window of its rows.

        Packed rows are divided into blocks of similar lengths, since the cost of attention grows with the square of the
        width. There is one block for padded rows, for rows with a past, and where more would cost more than they save.
        """
        if x.layout == "padded":
            return [(self, x.filled(0.0))]
        sizes = [block.rows.n_rows * block.rows.width for block in self._blocks]
        places = torch.split(move_places(x.values, None, self._places, sum(sizes)), sizes)
        return [
            (block, part.view(block.rows.n_rows, block.rows.width, *part.shape[1:]))
            for block, part in zip(self._blocks, places, strict=True)
        ]

    def from_rectangles(self, parts: list[Tensor], layout: Layout) -> Ragged:
        """Return the rows of `rectangles` in their own layout, given new values for each, (B', T', *)."""
        if layout == "padded":
            return Ragged(parts[0], self.rows, "padded")
        places = torch.cat([part.flatten(0, 1) for part in parts])
        return Ragged(move_places(places, self._places, None, self.rows.n_tokens), self.rows, "packed")

    @cached_property
    def _rows_of_blocks(self) -> list[IntArray]:
        """The rows of each block, by number."""
        lengths = self.rows.host_lengths
        if self.n_seen is not None:
            return [np.arange(len(lengths))]
        order = np.argsort(lengths, kind="stable")
        ends = block_ends(lengths[order])
        return [np.arange(len(lengths))] if len(ends) == 1 else np.split(order, ends[:-1])

    @cached_property
    def _blocks(self) -> list[AttentionWindow]:
        if len(self._rows_of_blocks) == 1:
            return [self]
        parts = [select_rows(self.rows, numbers)[0] for numbers in self._rows_of_blocks]
        return [AttentionWindow(rows, self.causal, self.memory, None, 0) for rows in parts]

    @cached_property
    def _places(self) -> Tensor:
        """The place of each packed token in the concatenated rectangles, (N,)."""
        first, start = np.empty(self.rows.n_rows, dtype=np.int64), 0
        for numbers, block in zip(self._rows_of_blocks, self._blocks, strict=True):
            first[numbers] = start + np.arange(len(numbers)) * block.rows.width
            start += len(numbers) * block.rows.width
        return self.rows.send(np.repeat(first, self.rows.host_lengths) + self.rows.host_position)

    @cached_property
    def next_places(self) -> int:
        """The number of places of the past after this window: the longest history of a row, at most the memory."""
        longest = int((self.past_lengths + self.rows.host_lengths).max(initial=0))
        return longest if self.memory is None else min(longest, self.memory)

    @cached_property
    def next_keys(self) -> Tensor:
        """The indices of those places among the B * K keys, (B * kept,)."""
        starts = np.arange(self.rows.n_rows) * self.keys
        return latest_indices(self.rows, self.next_places, starts, self.places, starts + self.places)


def length_mask(rows: Rows) -> Tensor | None:
    """Return the keys that the queries of each row see, (B, 1, 1, T); None without padding (faster kernels).

    The queries of an empty row see its padding; their output is never read.
    """
    if rows.is_rectangle(rows.width):
        return None
    return (rows.mask | (rows.lengths == 0)[:, None])[:, None, None, :]
