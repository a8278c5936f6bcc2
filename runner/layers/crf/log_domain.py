"""Sums over all paths in the log domain: correct for any gap between scores, without reading values on the host.

Used on a GPU, where checking whether `scaled_domain` is exact would synchronise, and on a CPU where that check fails.
A step costs C times as much as a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.layers.crf.chain import Chain
from runner.ragged.rows import Rows

PAIRS_AT_ONCE = 2**22  # numbers of a (tokens, C, C) tensor in memory at a time


@dataclass(frozen=True)
class LogSums:
    """Logs of the sums of exp(score) over the partial paths before and after each token, in D directions.

    The first direction is forward, the second, if any, backward.
    """

    log_z: Tensor  # (R,) log of the sum over all paths of each row, longest row first
    before: Tensor  # (D, N, C) packed: over partial paths that reach a token and a tag, without the tag's own score
    after: Tensor  # (D, N, C) packed: the same with the tag's own score
    transitions: Tensor  # (C, C)
    rows: Rows

    @classmethod
    def of(cls, scores: Tensor, chain: Chain, rows: Rows, both: bool) -> LogSums:
        """Return the sums for the scores (N, C), packed, of at least one token: forward only, or `both` directions."""
        time, n_directions = rows.time_major, 1 + both
        chain = chain.to(torch.float64)
        # The backward recursion is the forward recursion over reversed rows with transposed transitions and the end
        # scores as start scores. Stacking both as a dimension D halves the number of kernel launches.
        orders = torch.stack([time.tokens, rows.packed_reversal.index_select(0, time.tokens)])[:n_directions]
        own = scores.double().index_select(0, orders.flatten()).view(n_directions, *scores.shape)
        edges = torch.stack([chain.start, chain.end])[:n_directions]
        moves = torch.stack([chain.transitions.t(), chain.transitions])[:n_directions]  # (D, to, from)
        before, after = _sweep(own, edges, moves, time.batch_sizes.numpy().tolist())
        # the inverse of `orders`: from time-major back to packed
        packed = torch.stack([time.inverse, time.inverse.index_select(0, rows.packed_reversal)])[:n_directions]
        index = packed[:, :, None].expand_as(before)
        before, after = before.gather(1, index), after.gather(1, index)
        log_z = (after[0].index_select(0, rows.ends[1]) + chain.end).logsumexp(1)
        return cls(log_z, before, after, chain.transitions, rows)

    def _token_log_z(self) -> Tensor:
        """Return `log_z` of each token's row, (N,)."""
        row_log_z = self.log_z.new_zeros(self.rows.n_rows).index_copy(0, self.rows.time_major.row_order, self.log_z)
        return row_log_z.index_select(0, self.rows.row)

    def token_marginals(self) -> Tensor:
        """Return the probability of each tag at each token, (N, C) packed."""
        # forward sums without the tag's own score and backward sums with it: the score enters once
        return (self.before[0] + self.after[1] - self._token_log_z()[:, None]).exp_()

    def pair_sums(self, weights: Tensor) -> Tensor:
        """Return the expected count of each transition, (C, C), with the step into each token weighted by (N,)."""
        total = torch.zeros_like(self.transitions)
        # (N, C, C) pair probabilities would not fit in memory for many tags, so tokens are handled in pieces
        size = max(1, PAIRS_AT_ONCE // self.transitions.numel())
        # no path goes from the last token of a row to the first token of the next row
        first = (self.rows.position == 0)[:, None]
        from_end = (self.after[1] - self._token_log_z()[:, None]).masked_fill(first, -torch.inf)
        parts = (self.after[0][:-1], from_end[1:], weights[1:])
        for left, right, weight in zip(*(torch.split(part, size) for part in parts), strict=True):
            probability = (left[:, :, None] + self.transitions + right[:, None, :]).exp_()
            total += (probability * weight[:, None, None]).sum(0)
        return total


def _sweep(own: Tensor, first: Tensor, moves: Tensor, running: list[int]) -> tuple[Tensor, Tensor]:
    """Return `before` and `after`, time-major, from the tags' own scores and the log sums before the first step (D, C).

    `moves` (D, C, C) are scores of moving to a tag (row) from another (column), `running` the rows of each step.
    """
    # before[t, y] = logsumexp over y' of after[t - 1, y'] + moves[y, y'];  after[t, y] = before[t, y] + own[t, y].
    # Rows are sorted from long to short, so the rows that are still running are always the first n of a step.
    steps = torch.split(own, running, dim=1)
    befores = [first[:, None, :].expand_as(steps[0])]
    afters = [befores[0] + steps[0]]
    for n, step in zip(running[1:], steps[1:], strict=True):
        befores.append((afters[-1][:, :n, None, :] + moves[:, None]).logsumexp(3))
        afters.append(befores[-1] + step)
    return torch.cat(befores, 1), torch.cat(afters, 1)
