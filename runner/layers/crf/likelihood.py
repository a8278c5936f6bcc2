"""The likelihood of a path among all paths of its row, its gradient in closed form, and marginal probabilities.

The derivative of log Z by a score is the probability, over all paths, of using that score (Lafferty et al. 2001,
section 3). One forward and one backward sum give all of these probabilities, so autograd records no time steps.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from runner.layers.autograd import Context, apply
from runner.layers.crf.chain import Chain, path_scores
from runner.layers.crf.log_domain import LogSums
from runner.layers.crf.scaled_domain import ScaledSums
from runner.ragged.rows import Rows


def negative_log_likelihood(scores: Tensor, tags: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """Return -log p(tags | scores) of each row in nats, (B,) float64; 0 for empty rows, inf for forbidden paths.

    Differentiable once, with respect to `scores` and `chain`.

    Args:
        scores: (N, C) packed.
        tags: (N,) int64 ids of the path.

    Raises:
        RuntimeError: if a second derivative is requested (`create_graph=True`).
    """
    return apply(_Likelihood, scores, *chain, tags, rows)


@torch.no_grad()
def token_marginals(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """Return the probability of each tag at each token over all paths, (N, C) float64 packed, without gradient."""
    if rows.n_tokens == 0:
        return scores.double()
    return path_sums(scores, chain, rows, both=True).token_marginals()


def path_sums(scores: Tensor, chain: Chain, rows: Rows, both: bool) -> ScaledSums | LogSums:
    """Return sums in the probability domain where they are exact, otherwise in the log domain.

    `scores` (N, C) are packed, of at least one token. With `both`, backward sums are computed too.
    """
    # Scores that differ by hundreds of nats underflow in the probability domain, and only the computed numbers show it.
    # Reading them is free on a CPU. On a GPU it would synchronise, and the GPU has enough threads for log-domain sums.
    if scores.device.type == "cpu":
        scaled = ScaledSums.of(scores, chain, rows, both)
        if scaled.are_exact(chain):
            return scaled
    return LogSums.of(scores, chain, rows, both)


class _Context(Context, Protocol):
    rows: Rows
    tags: Tensor
    sums: ScaledSums | LogSums
    kinds: list[tuple[torch.Size, torch.dtype]]  # of the differentiable inputs


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, scores: Tensor, start: Tensor, transitions: Tensor, end: Tensor, tags: Tensor, rows: Rows
    ) -> Tensor:
        ctx.rows, ctx.kinds = rows, [(part.shape, part.dtype) for part in (scores, start, transitions, end)]
        result = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
        if rows.n_tokens == 0:
            return result
        chain = Chain(start, transitions, end)
        ctx.sums, ctx.tags = path_sums(scores, chain, rows, both=any(ctx.needs_input_grad)), tags
        result.index_copy_(0, rows.time_major.row_order, ctx.sums.log_z)
        return result.sub_(path_scores(scores, tags, chain, rows))

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients: expected counts over all paths minus the counts of the given path."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a CRF likelihood cannot be differentiated again; use create_graph=False"
            )
        rows = ctx.rows
        if rows.n_tokens == 0:
            return (*(torch.zeros(shape, dtype=dtype, device=grad.device) for shape, dtype in ctx.kinds), None, None)
        # Each gradient is an expectation over all paths minus an observation on the given path. Every token is weighted
        # by the incoming gradient of its row; the transition into a row's first token does not exist, so its weight
        # is 0, which also cancels the pairs that `roll` forms across rows.
        weights = grad.index_select(0, rows.row)
        inner = weights.masked_fill(rows.position == 0, 0.0)
        token_grad = ctx.sums.token_marginals() * weights[:, None]
        token_grad.scatter_add_(1, ctx.tags[:, None], -weights[:, None])
        pair_grad = ctx.sums.pair_sums(inner)
        steps = ctx.tags.roll(1) * token_grad.shape[1] + ctx.tags
        pair_grad.view(-1).index_add_(0, steps, inner, alpha=-1)
        # start and end scores are used exactly by the tags of first and last tokens, so their gradients are sums
        start_grad, end_grad = (token_grad.index_select(0, places).sum(0) for places in rows.ends)
        grads = (token_grad, start_grad, pair_grad, end_grad)
        return (*(part.to(dtype) for part, (_, dtype) in zip(grads, ctx.kinds, strict=True)), None, None)
