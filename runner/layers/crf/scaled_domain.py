"""Sums over all paths in the probability domain, in float64 on a CPU.

A step of the forward recursion is one matrix product and one multiplication (Rabiner 1989, III.A):

    sums[t + 1] = (sums[t] @ exp(transitions)) * exp(scores[t + 1])

The sums grow or shrink exponentially with the length of a row, so they are divided by their total every few steps
(V.A). Backward sums are forward sums of the reversed row with transposed transitions, so both run in the same loop.
Steps are small, so the overhead of calls dominates: a numpy call costs a third of a torch call, which makes steps twice
as fast (docs/notes/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import BoolArray, FloatArray
from runner.layers.crf.chain import Chain
from runner.ragged.rows import Rows

SCALE_EVERY = 8  # steps between divisions; float64 spans 700 nats in either direction, a step uses a few dozen
# A term that underflows is below 1e-307, and no start, transition or end score multiplies it by more than LARGEST. So
# it cannot contribute to a sum of at least LEAST, and sums of up to MOST are far from overflow.
LEAST, MOST, LARGEST = 1e-270, 1e280, 1e20
ONE_THREAD = 2**18  # multiplications of a matrix product up to which OpenBLAS uses a single thread


@dataclass(frozen=True)
class ScaledSums:
    """Sums of exp(score) over the partial paths before and after each token, each up to a factor of its row and step.

    D directions: forward, then backward, if at all (its n-th step is the n-th token from the row's end).
    """

    log_z: Tensor  # (R,) log of the sum over all paths of each row, longest row first
    of_rows: FloatArray  # (R,) the same sum, up to a factor
    before: FloatArray  # (D, N, C) time-major: over partial paths that reach a token and a tag, without its own score
    after: FloatArray  # (D, N, C) time-major: the same with the tag's own score
    edges: FloatArray  # (2, C) exp of the start and end scores
    moves: FloatArray  # (C, C) exp of the transitions
    rows: Rows

    @classmethod
    @np.errstate(all="ignore")  # the caller checks `are_exact`
    def of(cls, scores: Tensor, chain: Chain, rows: Rows, both: bool) -> ScaledSums:
        """Return the sums for the scores (N, C), packed on a CPU, of at least one token: forward only, or `both`."""
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
        """Return sums over the paths through each token and tag, (N, C), and their backward part, (N, C); packed."""
        inverse = self.rows.time_major.inverse.numpy()
        from_end = self.after[1].take(inverse[self.rows.packed_reversal.numpy()], axis=0)
        return self.before[0].take(inverse, axis=0) * from_end, from_end

    @cached_property
    def _total(self) -> FloatArray:
        """Return the sum over all paths as seen from each token, (N, 1)."""
        # The scale factors of a token's forward and backward sums multiply all of its tags alike. Dividing by this
        # total, which has the same factors, removes them, so probabilities never need the factors themselves.
        total: FloatArray = self._around[0].sum(1, keepdims=True)
        return total

    def token_marginals(self) -> Tensor:
        """Return the probability of each tag at each token, (N, C) packed."""
        return torch.from_numpy(self._around[0] / self._total)

    def pair_sums(self, weights: Tensor) -> Tensor:
        """Return the expected count of each transition, (C, C), with the step into each token weighted by (N,)."""
        # The sum over tokens of left[t - 1, i] * moves[i, j] * right[t, j] is one product of the (N, C) sums of all
        # tokens, so no (N, C, C) array exists. Pairs across two rows have weight 0 (see `_Likelihood.backward`).
        from_start = self.after[0].take(self.rows.time_major.inverse.numpy(), axis=0)
        shares = (weights.numpy()[:, None] / self._total)[1:]
        left, right = torch.from_numpy(from_start[:-1] * shares), torch.from_numpy(self._around[1][1:])
        return torch.from_numpy(self.moves) * (left.t() @ right)

    @np.errstate(all="ignore")
    def are_exact(self, chain: Chain) -> bool:
        """Return whether no path was lost to underflow or overflow in float64."""
        least = self.before.min()
        if least < LEAST:  # a zero is correct where no allowed path reaches the tag: look at the other tags only
            step = self.rows.host_position[self.rows.time_major.tokens.numpy()]
            possible = _possible(chain, len(self.before), self.rows.max_len)
            least = self.before.min(initial=1.0, where=possible[:, np.minimum(step, possible.shape[1] - 1)])
        totals = [self.of_rows, self._total] if len(self.before) == 2 else [self.of_rows]
        lows = (least, *(total.min() for total in totals))
        highs = (self.before.max(), *(total.max() for total in totals))
        shared = (self.edges.max(), self.moves.max())
        # comparisons with NaN are false, so a NaN anywhere means "not exact"
        return all(low >= LEAST for low in lows) and all(high <= MOST for high in highs) and max(shared) <= LARGEST


def _on_host(scores: Tensor) -> FloatArray:
    # a copy, since torch could not free the memory of a parameter that numpy has seen (`runner.distributed.shards`)
    return scores.detach().to(torch.float64, copy=True).numpy()


def _sweep(
    own: FloatArray, first: FloatArray, moves: FloatArray, running: list[int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Run the recursion over time; return `before`, `after` and the log of the scale divided out of each row, (R,).

    Args:
        own: (D, N, C) exp of the tags' own scores, time-major.
        first: (D, C) sums before the first step.
        moves: (D, C, C) exp of the scores of moving from a tag (row) to another (column).
        running: rows of each step.
    """
    # Rows are sorted from long to short and time-major, so every step works on a contiguous slice whose first n rows
    # continue the previous step; products are written in place, without temporary arrays. The scale removed from the
    # forward sums is kept as a log, since log Z needs it back; that of the backward sums cancels in probabilities.
    before, after = np.empty_like(own), np.empty_like(own)
    log_factor = np.zeros(running[0])
    start = running[0]
    before[:, :start] = first[:, None, :]
    latest = np.multiply(before[:, :start], own[:, :start], out=after[:, :start])
    for step, n in enumerate(running[1:], start=1):
        here = slice(start, start + n)
        reached = _multiply(latest[:, :n], moves, before[:, here])
        latest = np.multiply(reached, own[:, here], out=after[:, here])
        if step % SCALE_EVERY == 0:
            total = latest.sum(2, keepdims=True)
            latest /= total
            log_factor[:n] += np.log(total[0, :, 0])
        start += n
    return before, after, log_factor


def _multiply(left: FloatArray, right: FloatArray, result: FloatArray) -> FloatArray:
    """Return (D, n, C) @ (D, C, C), written to `result`.

    Large products use torch: numpy's BLAS would start threads of its own, which compete with those of torch.
    """
    if left[0].size * right.shape[2] <= ONE_THREAD:
        return np.matmul(left, right, out=result)
    torch.bmm(*(torch.from_numpy(array) for array in (left, right)), out=torch.from_numpy(result))
    return result


def _possible(chain: Chain, n_directions: int, n_steps: int) -> BoolArray:
    """Return which tags any allowed path reaches at each step from either end of a row, (D, K, C) bool.

    K is at most `n_steps`: once a step equals the one before, so do all later ones, and the last entry stands for them.
    """
    allowed = _on_host(chain.transitions) > -np.inf
    both = np.stack([allowed, allowed.T])[:n_directions]
    reached = [np.stack([_on_host(chain.start), _on_host(chain.end)])[:n_directions] > -np.inf]
    while len(reached) < n_steps:
        reached.append((reached[-1][:, None, :] @ both)[:, 0])
        if (reached[-1] == reached[-2]).all():
            break
    return np.stack(reached, axis=1)
