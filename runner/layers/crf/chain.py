"""What a linear chain adds to the tags' own scores: the scores of a path's start, its steps and its end.

A path through a row of tags y_1 .. y_L scores start[y_1] + sum of scores[t, y_t] + sum of transitions[y_t-1, y_t] +
end[y_L] (Lafferty et al. 2001; Collobert et al. 2011, eq. 9, with start and end). -inf forbids.

Shapes here and in crf_*.py: B rows, of which R are not empty, N tokens in all, C tags, n rows still running at a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.ragged.rows import Rows


@dataclass(frozen=True)
class Chain:
    """Scores of what stands between tags.

    Attributes:
        start: (C,) of a row's first tag.
        transitions: (C, C) of going from a tag (row) to the next (column).
        end: (C,) of a row's last tag.
    """

    start: Tensor
    transitions: Tensor
    end: Tensor

    def to(self, dtype: torch.dtype) -> Chain:
        return Chain(self.start.to(dtype), self.transitions.to(dtype), self.end.to(dtype))


@dataclass(frozen=True)
class Allowed:
    """Which tags may begin a row, follow one another, and end a row: bool, of the shapes of a `Chain`."""

    start: Tensor
    transitions: Tensor
    end: Tensor

    @classmethod
    def everything(cls, n_tags: int) -> Allowed:
        one = torch.ones(n_tags, dtype=torch.bool)
        return cls(one, one.expand(n_tags, -1), one)

    def restrict(self, chain: Chain) -> Chain:
        """The same scores with -inf for what is not allowed."""
        pairs = ((chain.start, self.start), (chain.transitions, self.transitions), (chain.end, self.end))
        return Chain(*(scores.masked_fill(~allowed, -torch.inf) for scores, allowed in pairs))


def wide(values: Tensor) -> torch.dtype:
    """The dtype in which scores are added up: float32 at least."""
    return torch.promote_types(values.dtype, torch.float32)


def path_scores(scores: Tensor, tags: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(B,) float64: of one path a row; 0 for empty rows.

    Args:
        scores: (N, C) packed.
        tags: (N,) ids.
        chain: of the same C tags.
        rows: where rows begin and end.
    """
    n_tags = scores.shape[1]
    table = torch.cat([chain.transitions.flatten(), chain.start, chain.end])
    came_from = torch.where(rows.position == 0, n_tags, tags.roll(1))  # start lies behind the last row of transitions
    steps = table.index_select(0, came_from * n_tags + tags)
    own = scores.gather(1, tags[:, None]).squeeze(1)
    last = tags.index_select(0, rows.ends[1]) + n_tags * (n_tags + 1)
    total = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
    total = total.index_add(0, rows.row, own.double() + steps.double())
    return total.index_add(0, rows.time_major.row_order, table.index_select(0, last).double())
