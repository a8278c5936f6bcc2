"""What rows keep of their past from one window of a text to the next, and which of it a token attends to.

Shapes: B rows, T the padded width, P places of the past.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.blocks import block_ends
from runner.ragged.rows import Rows, choose


def latest(rows: Rows, count: int, past: IntArray, places: int, own: IntArray) -> Tensor:
    """(B * count,) where the last `count` tokens of each row lie, in order: the end of its own after that of its past.

    Args:
        past: (B,) where each row's past begins; it ends, after so many `places`, with the latest token.
        own: (B,) where the row's own tokens begin.

    A row that has had fewer tokens gets its first place in front of them: what stands there means nothing.
    """
    place = rows.host_lengths[:, None] - np.arange(count, 0, -1)
    index = np.where(place >= 0, own[:, None] + place, past[:, None] + np.maximum(places + place, 0))
    return rows._send(index.ravel())


class Reach:
    """Which keys the queries of a batch see, in every layer of a stack.

    Keys lie in K = P + T places: the past of each row, which ends where the padded rows themselves begin, then those.

    Args:
        rows: of the queries.
        causal: a query sees keys up to its own.
        memory: and at most so many before it; None: all of them.
        seen: (B,) tokens of each row before these, of which the last ones are in the past; None: there is no past.
        places: P.

    Raises:
        ValueError: a memory or a past, and not causal.
    """

    def __init__(self, rows: Rows, causal: bool, memory: int | None, seen: IntArray | None, places: int) -> None:
        if not causal and (memory is not None or seen is not None):
            raise ValueError("only causal attention has a memory, and carries a state")
        self.rows, self.causal, self.memory, self.places = rows, causal, memory, places
        self.keys = places + rows.width
        self.remembered = np.zeros(rows.n_rows, dtype=np.int64) if seen is None else np.minimum(seen, places)

    @cached_property
    def is_triangle(self) -> bool:
        """Whether query t sees keys up to t, and nothing else is to be hidden: kernels know this without a mask."""
        return self.causal and self.places == 0 and not self._slides

    @property
    def _slides(self) -> bool:
        """Whether the last query does not see the first key, since it lies too far back."""
        return self.memory is not None and self.keys - 1 > self.memory

    @cached_property
    def mask(self) -> Tensor | None:
        """(T, K) or (B, 1, T, K), or (B, 1, 1, K) if not causal: true where a query sees a key; None: they see all.

        What padding sees does not matter, but it sees something: a softmax over nothing would be NaN.
        """
        if not self.causal:
            return length_mask(self.rows)
        full = self.rows.n_rows == 0 or int(self.remembered.min()) == self.places
        if full and self.rows.width == 1 and not self._slides:
            return None
        key = torch.arange(self.keys, device=self.rows.device)
        query = key[self.places :, None]
        visible = key <= query
        if self._slides and self.memory is not None:
            visible = visible & (key >= query - self.memory)
        if full:
            return visible
        begins = self.rows._send(self.places - self.remembered)
        return visible & (key >= begins[:, None, None, None])

    @cached_property
    def blocks(self) -> list[tuple[Reach, Tensor]]:
        """Rows of close lengths by themselves, with the packed index of each of their tokens: less padding, squared.

        Only where there is no past. None where more than one block would gain nothing.
        """
        lengths = self.rows.host_lengths
        order = np.argsort(lengths, kind="stable")
        ends = block_ends(lengths[order])
        if len(ends) == 1:
            return []
        chosen = [choose(self.rows, part) for part in np.split(order, ends[:-1])]
        return [(Reach(rows, self.causal, self.memory, None, 0), tokens) for rows, tokens in chosen]

    @cached_property
    def unblocked(self) -> Tensor:
        """(N,) for each packed token, where it lies among those of all blocks."""
        tokens = np.concatenate([reach.rows.source for reach, _ in self.blocks])
        inverse = np.empty_like(tokens)
        inverse[tokens] = np.arange(len(tokens))
        return self.rows._send(inverse)

    @cached_property
    def kept(self) -> int:
        """Places of the past after these rows: as many as the longest history of a row has, or the memory."""
        longest = int((self.remembered + self.rows.host_lengths).max(initial=0))
        return longest if self.memory is None else min(longest, self.memory)

    @cached_property
    def latest(self) -> Tensor:
        """(B * kept,) those places among the B * K of all rows."""
        begins = np.arange(self.rows.n_rows) * self.keys
        return latest(self.rows, self.kept, begins, self.places, begins + self.places)


def length_mask(rows: Rows) -> Tensor | None:
    """(B, 1, 1, T): the keys that a row's queries see; None where all are real, so that kernels without mask can run.

    An empty row sees its padding: what it says is never read.
    """
    if rows.n_tokens == rows.n_rows * rows.width:
        return None
    return (rows.mask | (rows.lengths == 0)[:, None])[:, None, None, :]
