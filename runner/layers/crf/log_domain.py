"""Sums over all paths in the domain of logarithms: right for every gap between scores, without a look at any number.

Used where `scaled_domain` would have to wait for the device to know whether it may be trusted, and where it may not.
Its time is C times that of a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.layers.crf.chain import Chain
from runner.ragged.rows import Rows

PAIRS_AT_ONCE = 2**22  # numbers of (tokens, C, C) in memory at a time


@dataclass(frozen=True)
class LogSums:
    """Logs of sums of exp(score) over the paths on either side of each token.

    Attributes:
        log_z: (R,) log of the sum over all paths of each row, longest row first.
        before: (D, N, C) packed: over the paths that lead to a token and a tag, without the tag's own score. D
            directions: forward, and backward.
        after: (D, N, C) packed: with the tag's own score.
        transitions: (C, C).
        rows: where rows begin and end.
    """

    log_z: Tensor
    before: Tensor
    after: Tensor
    transitions: Tensor
    rows: Rows

    @classmethod
    def of(cls, scores: Tensor, chain: Chain, rows: Rows, both: bool) -> LogSums:
        """Of at least one token's scores (N, C), packed: forward sums alone, or both."""
        time, n_directions = rows.time_major, 1 + both
        chain = chain.to(torch.float64)
        orders = torch.stack([time.tokens, rows.packed_reversal.index_select(0, time.tokens)])[:n_directions]
        own = scores.double().index_select(0, orders.flatten()).view(n_directions, *scores.shape)
        edges = torch.stack([chain.start, chain.end])[:n_directions]
        moves = torch.stack([chain.transitions.t(), chain.transitions])[:n_directions]  # (D, to, from)
        before, after = _sweep(own, edges, moves, time.batch_sizes.numpy().tolist())
        # the way back from `orders` to packed
        back = torch.stack([time.inverse, time.inverse.index_select(0, rows.packed_reversal)])[:n_directions]
        index = back[:, :, None].expand_as(before)
        before, after = before.gather(1, index), after.gather(1, index)
        log_z = (after[0].index_select(0, rows.ends[1]) + chain.end).logsumexp(1)
        return cls(log_z, before, after, chain.transitions, rows)

    def _of_token(self) -> Tensor:
        """(N,) `log_z` of each token's row."""
        of_row = self.log_z.new_zeros(self.rows.n_rows).index_copy(0, self.rows.time_major.row_order, self.log_z)
        return of_row.index_select(0, self.rows.row)

    def token_marginals(self) -> Tensor:
        """(N, C) packed: how likely each token has each tag."""
        return (self.before[0] + self.after[1] - self._of_token()[:, None]).exp_()

    def pair_sums(self, weights: Tensor) -> Tensor:
        """(C, C): how often each tag follows each other, the step into each token weighed by (N,)."""
        total = torch.zeros_like(self.transitions)
        size = max(1, PAIRS_AT_ONCE // self.transitions.numel())
        # no path goes from the last token of a row to the first of the next
        back = (self.after[1] - self._of_token()[:, None]).masked_fill((self.rows.position == 0)[:, None], -torch.inf)
        parts = (self.after[0][:-1], back[1:], weights[1:])
        for ahead, behind, weight in zip(*(torch.split(part, size) for part in parts), strict=True):
            likely = (ahead[:, :, None] + self.transitions + behind[:, None, :]).exp_()
            total += (likely * weight[:, None, None]).sum(0)
        return total


def _sweep(own: Tensor, first: Tensor, moves: Tensor, running: list[int]) -> tuple[Tensor, Tensor]:
    """`before` and `after`, time-major.

    Args:
        own: (D, N, C) the tags' own scores.
        first: (D, C) sums before the first step.
        moves: (D, C, C) to a tag from each.
        running: rows that are still running at each step.
    """
    steps = torch.split(own, running, dim=1)
    befores = [first[:, None, :].expand_as(steps[0])]
    afters = [befores[0] + steps[0]]
    for n, step in zip(running[1:], steps[1:], strict=True):
        befores.append((afters[-1][:, :n, None, :] + moves[:, None]).logsumexp(3))
        afters.append(befores[-1] + step)
    return torch.cat(befores, 1), torch.cat(afters, 1)
