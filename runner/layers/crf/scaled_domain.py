"""Sums over all paths in the domain of probabilities: one matrix product and one product a step, in float64, on a CPU.

The forward sums of every row and its backward sums (the forward sums of the row read from its own end, by transposed
transitions) run side by side, scaled at every few steps (Rabiner 1989, III.A and V.A). Steps are small: numpy's calls,
which cost a third of torch's, make them twice as fast (docs/notes/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import FloatArray
from runner.layers.crf.chain import Chain
from runner.ragged.rows import Rows

SCALE_EVERY = 8  # steps; float64 holds 700 nats either way, and a step takes some tens at most
# What underflow takes is below 1e-307, and no start, step or end makes it larger than LARGEST times that: sums of LEAST
# and more do not show it.
LEAST, MOST, LARGEST = 1e-270, 1e280, 1e20
ONE_THREAD = 2**18  # multiplications of a matrix product up to which OpenBLAS takes one thread


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
    of_rows: FloatArray
    before: FloatArray
    after: FloatArray
    edges: FloatArray
    moves: FloatArray
    rows: Rows

    @classmethod
    @np.errstate(all="ignore")  # `are_exact` is asked next
    def of(cls, scores: Tensor, chain: Chain, rows: Rows, both: bool) -> ScaledSums:
        """Of at least one token's scores (N, C), packed, on a CPU: forward sums alone, or both."""
        time = rows.time_major
        order, inverse = time.tokens.numpy(), time.inverse.numpy()
        orders = np.stack([order, rows.packed_reversal.numpy()[order]]) if both else order[None]
        own = np.exp(_on_host(scores)).take(orders, axis=0)
        edges = np.exp(np.stack([_on_host(chain.start), _on_host(chain.end)]))
        moves = np.exp(_on_host(chain.transitions))
        both_moves = np.stack([moves, moves.T])[: len(own)]
        before, after, log_factor = _sweep(own, edges[: len(own)], both_moves, time.batch_sizes.numpy().tolist())
        of_rows = after[0].take(inverse[rows.ends[1].numpy()], axis=0) @ edges[1]
        log_z = torch.from_numpy(np.log(of_rows) + log_factor)
        return cls(log_z, of_rows, before, after, edges, moves, rows)

    @cached_property
    def _around(self) -> tuple[FloatArray, FloatArray]:
        """(N, C) sums over the paths through a token and a tag, and (N, C) the backward part of them; both packed."""
        inverse = self.rows.time_major.inverse.numpy()
        back = self.after[1].take(inverse[self.rows.packed_reversal.numpy()], axis=0)
        return self.before[0].take(inverse, axis=0) * back, back

    @cached_property
    def _total(self) -> FloatArray:
        """(N, 1) sums over all paths, by each token's factors."""
        total: FloatArray = self._around[0].sum(1, keepdims=True)
        return total

    def token_marginals(self) -> Tensor:
        """(N, C) packed: how likely each token has each tag."""
        return torch.from_numpy(self._around[0] / self._total)

    def pair_sums(self, weights: Tensor) -> Tensor:
        """(C, C): how often each tag follows each other, the step into each token weighed by (N,)."""
        ahead = self.after[0].take(self.rows.time_major.inverse.numpy(), axis=0)
        shares = (weights.numpy()[:, None] / self._total)[1:]
        weighed, back = torch.from_numpy(ahead[:-1] * shares), torch.from_numpy(self._around[1][1:])
        return torch.from_numpy(self.moves) * (weighed.t() @ back)

    @np.errstate(all="ignore")
    def are_exact(self, chain: Chain) -> bool:
        """Whether no sum misses paths that float64 could not hold."""
        least = self.before.min()
        if least < LEAST:  # what no path can reach does no harm
            step = self.rows.host_position[self.rows.time_major.tokens.numpy()]
            possible = _possible(chain, len(self.before), self.rows.max_len)
            least = self.before.min(initial=1.0, where=possible[:, np.minimum(step, possible.shape[1] - 1)])
        totals = [self.of_rows, self._total] if len(self.before) == 2 else [self.of_rows]
        lows = (least, *(total.min() for total in totals))
        highs = (self.before.max(), *(total.max() for total in totals))
        shared = (self.edges.max(), self.moves.max())
        # nan is neither
        return all(low >= LEAST for low in lows) and all(high <= MOST for high in highs) and max(shared) <= LARGEST


def _on_host(scores: Tensor) -> FloatArray:
    found: FloatArray = scores.detach().double().numpy()
    return found


def _sweep(
    own: FloatArray, first: FloatArray, moves: FloatArray, running: list[int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`before`, `after` and (R,) the log of the factor that `after` lacks at each row's forward end.

    Args:
        own: (D, N, C) exp of the tags' own scores.
        first: (D, C) sums before the first step.
        moves: (D, C, C).
        running: rows that are still running at each step.
    """
    before, after = np.empty_like(own), np.empty_like(own)
    log_factor = np.zeros(running[0])
    begin = running[0]
    before[:, :begin] = first[:, None, :]
    latest = np.multiply(before[:, :begin], own[:, :begin], out=after[:, :begin])
    for step, n in enumerate(running[1:], start=1):
        here = slice(begin, begin + n)
        reached = _multiply(latest[:, :n], moves, before[:, here])
        latest = np.multiply(reached, own[:, here], out=after[:, here])
        if step % SCALE_EVERY == 0:
            total = latest.sum(2, keepdims=True)
            latest /= total
            log_factor[:n] += np.log(total[0, :, 0])
        begin += n
    return before, after, log_factor


def _multiply(left: FloatArray, right: FloatArray, result: FloatArray) -> FloatArray:
    """(D, n, C) @ (D, C, C); large ones by torch, since numpy has threads of its own, which hinder those of torch."""
    if left[0].size * right.shape[2] <= ONE_THREAD:
        return np.matmul(left, right, out=result)
    torch.bmm(*(torch.from_numpy(one) for one in (left, right)), out=torch.from_numpy(result))
    return result


def _possible(chain: Chain, n_directions: int, n_steps: int) -> npt.NDArray[np.bool_]:
    """(D, K, C) which tags any path reaches at each step from a row's either end; the last of K holds for all later."""
    allowed = _on_host(chain.transitions) > -np.inf
    both = np.stack([allowed, allowed.T])[:n_directions]
    reached = [np.stack([_on_host(chain.start), _on_host(chain.end)])[:n_directions] > -np.inf]
    while len(reached) < n_steps:
        reached.append((reached[-1][:, None, :] @ both)[:, 0])
        if (reached[-1] == reached[-2]).all():
            break
    return np.stack(reached, axis=1)
