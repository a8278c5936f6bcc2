"""The scores that a linear chain adds to the tags' own scores: of a path's start, its transitions and its end.

A path y_1 .. y_L through a row of tags scores start[y_1] + sum of scores[t, y_t] + sum of transitions[y_t-1, y_t] +
end[y_L] (Lafferty et al. 2001; Collobert et al. 2011, eq. 9, with start and end). A score of -inf forbids a path.

Shapes in this package: B rows, R of them not empty, N tokens in all, C tags, n rows still running at a step. A row is
running at step t if it has more than t tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from runner.ragged.rows import Rows


class Chain(NamedTuple):
    """The learned scores of a chain."""

    start: Tensor  # (C,) score of each tag as the first of a row
    transitions: Tensor  # (C, C) score of moving from one tag (row) to the next (column)
    end: Tensor  # (C,) score of each tag as the last of a row

    def to(self, dtype: torch.dtype) -> Chain:
        """Return the chain with scores of `dtype`."""
        return Chain(*(scores.to(dtype) for scores in self))


class AllowedTransitions(NamedTuple):
    """The allowed first tags, transitions and last tags: bool tensors of the shapes of a `Chain`."""

    start: Tensor
    transitions: Tensor
    end: Tensor

    @classmethod
    def allow_all(cls, n_tags: int) -> AllowedTransitions:
        """Return an instance that forbids nothing."""
        ones = torch.ones(n_tags, dtype=torch.bool)
        return cls(ones, torch.ones(n_tags, n_tags, dtype=torch.bool), ones)

    def restrict(self, chain: Chain) -> Chain:
        """Return the scores of `chain` with -inf for everything that is not allowed."""
        return Chain(*(scores.masked_fill(~allowed, -torch.inf) for scores, allowed in zip(chain, self, strict=True)))


def accumulation_dtype(values: Tensor) -> torch.dtype:
    """Return the dtype for adding up scores: that of `values`, but at least float32."""
    return torch.promote_types(values.dtype, torch.float32)


def path_scores(scores: Tensor, tags: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """Return the score of one path of `tags` (N,) per row, given `scores` (N, C): (B,) float64; 0 for empty rows."""
    n_tags = scores.shape[1]
    # Starts, transitions and ends form one flat table, so that a single lookup scores the step into every token of
    # every row. Row C of the table holds the starts: a row's first token "comes from" tag C, any other from the token
    # before it. `roll` brings the last token of one row to the first of the next; `where` replaces it.
    table = torch.cat([chain.transitions.flatten(), chain.start, chain.end])
    previous = torch.where(rows.position == 0, n_tags, tags.roll(1))
    steps = table.index_select(0, previous * n_tags + tags)
    own = scores.gather(1, tags[:, None]).squeeze(1)
    last = tags.index_select(0, rows.ends[1]) + n_tags * (n_tags + 1)
    total = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
    total = total.index_add(0, rows.row, own.double() + steps.double())
    return total.index_add(0, rows.time_major.row_order, table.index_select(0, last).double())
