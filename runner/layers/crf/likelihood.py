"""The likelihood of a path among all paths of its row, its gradient in closed form, and marginal probabilities.

d log Z / d score = the probability, over all paths, of what the score is given for (Lafferty et al. 2001, section 3):
forward and backward sums give all of them, so that nothing is differentiated step by step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.layers.crf.chain import Chain, path_scores
from runner.layers.crf.log_domain import LogSums
from runner.layers.crf.scaled_domain import ScaledSums
from runner.ragged.rows import Rows


def negative_log_likelihood(scores: Tensor, tags: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(B,) float64 nats: -log p(tags | scores) of each row; 0 for empty rows, inf for forbidden paths.

    Differentiable once, by scores and chain.

    Args:
        scores: (N, C) packed.
        tags: (N,) int64.
        chain: of the same C tags.
        rows: where rows begin and end.

    Raises:
        RuntimeError: a second derivative is asked for, by `create_graph=True`.
    """
    parts = (chain.start, chain.transitions, chain.end)
    result: Tensor = _Likelihood.apply(scores, *parts, tags, rows)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def log_partition(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(B,) float64: log of the sum of exp(score) over all paths of each row; 0 for empty rows, which have one of none.

    No gradient flows.
    """
    result = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
    if rows.n_tokens == 0:
        return result
    return result.index_copy_(0, rows.time_major.row_order, sums(scores, chain, rows, both=False).log_z)


@torch.no_grad()
def token_marginals(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(N, C) float64 packed: the probability of each tag of each token, over all paths. No gradient flows."""
    if rows.n_tokens == 0:
        return scores.double()
    return sums(scores, chain, rows, both=True).token_marginals()


def sums(scores: Tensor, chain: Chain, rows: Rows, both: bool) -> ScaledSums | LogSums:
    """Those by probabilities where they are exact, else those by logarithms.

    Which it is can be seen only in numbers. On a CPU to look costs nothing; another device would be waited for, and
    has the threads for sums by logarithms. (A kernel that scans each row in registers is what would be faster there.)
    """
    if scores.device.type == "cpu":
        scaled = ScaledSums.of(scores, chain, rows, both)
        if scaled.are_exact(chain):
            return scaled
    return LogSums.of(scores, chain, rows, both)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, start: Tensor, transitions: Tensor, end: Tensor, tags: Tensor, rows: Rows
    ) -> Tensor:
        ctx.rows, ctx.kinds = rows, [(one.shape, one.dtype) for one in (scores, start, transitions, end)]
        result = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
        if rows.n_tokens == 0:
            return result
        chain = Chain(start, transitions, end)
        ctx.sums, ctx.tags = sums(scores, chain, rows, both=any(ctx.needs_input_grad)), tags
        result.index_copy_(0, rows.time_major.row_order, ctx.sums.log_z)
        return result.sub_(path_scores(scores, tags, chain, rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """What all paths lead one to expect, less what the given path has."""
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a CRF's likelihood cannot be differentiated: leave create_graph=False")
        rows: Rows = ctx.rows
        if rows.n_tokens == 0:
            return (*(torch.zeros(shape, dtype=dtype, device=grad.device) for shape, dtype in ctx.kinds), None, None)
        weights = grad.index_select(0, rows.row)
        inner = weights.masked_fill(rows.position == 0, 0.0)  # nothing leads to a row's first token
        of_tokens = ctx.sums.token_marginals() * weights[:, None]
        of_tokens.scatter_add_(1, ctx.tags[:, None], -weights[:, None])
        of_pairs = ctx.sums.pair_sums(inner)
        steps = ctx.tags.roll(1) * of_tokens.shape[1] + ctx.tags
        of_pairs.view(-1).index_add_(0, steps, inner, alpha=-1)
        of_start, of_end = (of_tokens.index_select(0, places).sum(0) for places in rows.ends)
        grads = (of_tokens, of_start, of_pairs, of_end)
        return (*(one.to(dtype) for one, (_, dtype) in zip(grads, ctx.kinds, strict=True)), None, None)
