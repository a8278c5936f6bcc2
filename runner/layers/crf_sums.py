"""The sum over all paths of a row, its gradient in closed form, and the marginal probabilities that this gradient is.

d log Z / d score = the probability, over all paths, of what the score is given for (Lafferty et al. 2001, section 3):
forward and backward sums give all of them, so that nothing is differentiated step by step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.layers.crf_chain import Chain, ends
from runner.layers.crf_exact import LogSums
from runner.layers.crf_scaled import ScaledSums
from runner.ragged import Rows


def log_partition(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(B,) float64: log of the sum of exp(score) over all paths of each row; 0 for empty rows, which have one of none.

    Differentiable once.

    Args:
        scores: (N, C) packed.
        chain: of the same C tags.
        rows: where rows begin and end.

    Raises:
        RuntimeError: a second derivative is asked for, by `create_graph=True`.
    """
    result: Tensor = _LogPartition.apply(scores, chain.start, chain.transitions, chain.end, rows)  # type: ignore[no-untyped-call]
    return result


def token_marginals(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """(N, C) float64 packed: the probability of each tag of each token, over all paths. No gradient flows."""
    if rows.n_tokens == 0:
        return scores.double()
    return sums(scores.detach(), chain.detach(), rows, both=True).token_marginals()


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


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, start: Tensor, transitions: Tensor, end: Tensor, rows: Rows) -> Tensor:
        result = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
        ctx.rows, ctx.kinds = rows, [(one.shape, one.dtype) for one in (scores, start, transitions, end)]
        if rows.n_tokens == 0:
            return result
        ctx.sums = sums(scores, Chain(start, transitions, end), rows, both=any(ctx.needs_input_grad))
        return result.index_copy_(0, rows.time_major.row_order, ctx.sums.log_z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a CRF's likelihood cannot be differentiated: leave create_graph=False")
        rows: Rows = ctx.rows
        if rows.n_tokens == 0:
            return (*(torch.zeros(shape, dtype=dtype, device=grad.device) for shape, dtype in ctx.kinds), None)
        weights = grad.index_select(0, rows.row)
        of_tokens = ctx.sums.token_marginals() * weights[:, None]
        of_start, of_end = (of_tokens.index_select(0, tokens).sum(0) for tokens in ends(rows))
        of_pairs = ctx.sums.pair_sums(weights.masked_fill(rows.position == 0, 0.0))
        grads = (of_tokens, of_start, of_pairs, of_end)
        return (*(one.to(dtype) for one, (_, dtype) in zip(grads, ctx.kinds, strict=True)), None)
