"""Sums over all paths in the domain of probabilities: one matrix product and one product a step, in float64.

The forward sums of every row and its backward sums (the forward sums of the row read from its own end, by transposed
transitions) run side by side, scaled at every few steps (Rabiner 1989, III.A and V.A).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.layers.crf_chain import Chain
from runner.rows import Rows

SCALE_EVERY = 8  # steps; float64 holds 700 nats either way, and a step takes some tens at most
# What underflow takes is below 1e-307, and no start, step or end makes it larger than LARGEST times that: sums of LEAST
# and more do not show it.
LEAST, MOST, LARGEST = 1e-270, 1e280, 1e20


@dataclass(frozen=True)
class ScaledSums:
    """Sums of exp(score) over the paths on either side of each token, each up to a factor of its row and step.

    Attributes:
        log_z: (R,) log of the sum over all paths of each row, longest row first.
        of_rows: (R,) the same sum, up to a factor.
        before: (D, N, C) time-major: over the paths that lead to a token and a tag, without the tag's own score. D
            directions: forward, and backward (there the n-th step is the n-th token from the row's end).
        after: (D, N, C) the same with the tag's own score.
        edges: (2, C) exp of the scores of starts and ends.
        moves: (C, C) exp of transitions.
        rows: where rows begin and end.
    """

    log_z: Tensor
    of_rows: Tensor
    before: Tensor
    after: Tensor
    edges: Tensor
    moves: Tensor
    rows: Rows

    @classmethod
    def of(cls, scores: Tensor, chain: Chain, rows: Rows, both: bool) -> ScaledSums:
        """Of at least one token's scores (N, C), packed: forward sums alone, or both."""
        time, n_directions = rows.time_major, 1 + both
        tokens = torch.cat([time.tokens, rows.packed_reversal.index_select(0, time.tokens)]) if both else time.tokens
        own = scores.double().exp().index_select(0, tokens).view(n_directions, *scores.shape)
        edges = torch.stack([chain.start, chain.end]).double().exp_()
        moves = chain.transitions.double().exp()
        both_moves = torch.stack([moves, moves.t()])[:n_directions]
        before, after, log_factor = _sweep(own, edges[:n_directions], both_moves, time.batch_sizes.numpy().tolist())
        last = after[0].index_select(0, time.inverse.index_select(0, rows.ends[1]))
        of_rows = last @ edges[1]
        return cls(of_rows.log() + log_factor, of_rows, before, after, edges, moves, rows)

    @cached_property
    def _around(self) -> tuple[Tensor, Tensor]:
        """(N, C) sums over the paths through a token and a tag, and (N, C) the backward part of them; both packed."""
        time = self.rows.time_major
        back = self.after[1].index_select(0, time.inverse.index_select(0, self.rows.packed_reversal))
        return self.before[0].index_select(0, time.inverse) * back, back

    @cached_property
    def _total(self) -> Tensor:
        """(N, 1) sums over all paths, by each token's factors."""
        return self._around[0].sum(1, keepdim=True)

    def token_marginals(self) -> Tensor:
        """(N, C) packed: how likely each token has each tag."""
        return self._around[0] / self._total

    def pair_sums(self, weights: Tensor) -> Tensor:
        """(C, C): how often each tag follows each other, the step into each token weighed by (N,)."""
        ahead = self.after[0].index_select(0, self.rows.time_major.inverse)
        shares = (weights[:, None] / self._total)[1:]
        return self.moves * ((ahead[:-1] * shares).t() @ self._around[1][1:])

    def are_exact(self, chain: Chain) -> bool:
        """Whether no sum misses paths that float64 could not hold. Reads numbers on the host: for the CPU alone."""
        sums = self.before.numpy()
        least = sums.min()
        if least < LEAST:  # what no path can reach does no harm
            step = self.rows.position.index_select(0, self.rows.time_major.tokens).numpy()
            possible = _possible(chain, len(sums), self.rows.max_len)
            least = sums.min(initial=1.0, where=possible[:, np.minimum(step, possible.shape[1] - 1)])
        totals = [self.of_rows, self._total] if len(sums) == 2 else [self.of_rows]
        lows = (least, *(total.numpy().min() for total in totals))
        highs = (sums.max(), *(total.numpy().max() for total in totals))
        shared = (self.edges.numpy().max(), self.moves.numpy().max())
        # nan is neither
        return all(low >= LEAST for low in lows) and all(high <= MOST for high in highs) and max(shared) <= LARGEST


def _sweep(own: Tensor, first: Tensor, moves: Tensor, running: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """`before`, `after` and (R,) the log of the factor that `after` lacks at each row's forward end.

    Args:
        own: (D, N, C) exp of the tags' own scores.
        first: (D, C) sums before the first step.
        moves: (D, C, C).
        running: rows that are still running at each step.
    """
    steps = torch.split(own, running, dim=1)
    before = first[:, None, :].expand_as(steps[0])
    after = before * steps[0]
    befores, afters = [before], [after]
    log_factor = own.new_zeros(running[0])
    for step in range(1, len(running)):
        n = running[step]
        if n < running[step - 1]:
            after = after.narrow(1, 0, n)
        before = torch.bmm(after, moves)
        after = before * steps[step]
        if step % SCALE_EVERY == 0:
            total = after.sum(2, keepdim=True)
            after = after / total
            log_factor[:n] += total[0, :, 0].log()
        befores.append(before)
        afters.append(after)
    return torch.cat(befores, 1), torch.cat(afters, 1), log_factor


def _possible(chain: Chain, n_directions: int, n_steps: int) -> npt.NDArray[np.bool_]:
    """(D, K, C) which tags any path reaches at each step from a row's either end; the last of K holds for all later."""
    allowed = chain.transitions.numpy() > -np.inf
    both = np.stack([allowed, allowed.T])[:n_directions]
    reached = [np.stack([chain.start.numpy(), chain.end.numpy()])[:n_directions] > -np.inf]
    while len(reached) < n_steps:
        reached.append((reached[-1][:, None, :] @ both)[:, 0])
        if (reached[-1] == reached[-2]).all():
            break
    return np.stack(reached, axis=1)
