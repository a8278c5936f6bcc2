"""A linear-chain conditional random field (Lafferty et al. 2001): exact, batched, for packed and padded rows.

Only real tokens are computed: each time step runs over the rows that have not ended. The gradient has a closed form:
the derivative of log Z by a score is the probability, over all paths, of using that score (Lafferty et al. 2001,
section 3). One forward and one backward sum give all of these probabilities, so autograd records no time steps.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from runner.layers.autograd import Context, apply
from runner.layers.crf.chain import AllowedTransitions, Chain, path_scores
from runner.layers.crf.log_domain import LogSums
from runner.layers.crf.padded import padded_marginals
from runner.layers.crf.scaled_domain import ScaledSums
from runner.layers.crf.viterbi import viterbi
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

Constrain = Literal["none", "train", "decode", "both"]


class Crf(nn.Module):
    """A layer that learns scores of starts, transitions and ends together with the tags' own scores.

    Args:
        allowed: which tags may start a row, follow each other, and end a row.
        constrain: where paths that are not allowed are excluded: in the likelihood (train), in best paths and marginals
            (decode), in both, or nowhere (none).
    """

    may_start: Tensor
    may_follow: Tensor
    may_end: Tensor

    def __init__(self, n_tags: int, allowed: AllowedTransitions, constrain: Constrain) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(n_tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(n_tags, n_tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(n_tags).uniform_(-0.1, 0.1))
        self.constrain = constrain
        for name, mask in zip(("may_start", "may_follow", "may_end"), allowed, strict=True):
            self.register_buffer(name, mask, persistent=False)

    def chain(self, purpose: Literal["train", "decode"]) -> Chain:
        """Return the chain's scores, with -inf where `constrain` forbids a step for `purpose`."""
        chain = Chain(self.start, self.transitions, self.end)
        if self.constrain not in (purpose, "both"):
            return chain
        return AllowedTransitions(self.may_start, self.may_follow, self.may_end).restrict(chain)

    def negative_log_likelihood(self, scores: Ragged, tags: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return -log p(tags | scores) of each row, (B,) float64, for scores of (length, C) and tags (N,) int64.

        Where the mask `observed` (N,) is false, the token may have any tag; None: all tags are observed.
        """
        return negative_log_likelihood(scores.tokens(), tags, self.chain("train"), scores.rows, observed)

    def decode(self, scores: Ragged) -> Tensor:
        """Return the tags of each row's best path, (N,) int64."""
        return viterbi(scores.tokens(), self.chain("decode"), scores.rows)[0]

    def marginals(self, scores: Ragged) -> Tensor:
        """Return the probability of each tag at each token, (N, C) float64, without gradient."""
        return token_marginals(scores.tokens(), self.chain("decode"), scores.rows)


def negative_log_likelihood(
    scores: Tensor, tags: Tensor, chain: Chain, rows: Rows, observed: Tensor | None = None
) -> Tensor:
    """Return -log p(tags | scores) of each row in nats, (B,) float64; 0 for empty rows, inf for forbidden paths.

    `scores` are (N, C) packed, `tags` (N,) int64. Where `observed` (N,) is false, p sums over all tags of the token
    (Tsuboi et al. 2008, partial annotations); None: all tags are observed. Differentiable once, with respect to
    `scores` and `chain`: a second derivative (`create_graph=True`) is a RuntimeError.
    """
    return apply(_Likelihood, scores, *chain, tags, rows, observed)


@torch.no_grad()
def token_marginals(scores: Tensor, chain: Chain, rows: Rows) -> Tensor:
    """Return the probability of each tag at each token over all paths, (N, C) float64 packed, without gradient."""
    if rows.n_tokens == 0:
        return scores.double()
    if not rows.on_host:
        rectangle = scores.double().view(rows.n_rows, rows.width, -1)
        return padded_marginals(rectangle, chain.to(torch.float64), rows.mask).flatten(0, 1)
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
    partial: ScaledSums | LogSums | None  # over the paths that agree with the observed tags; None: there is only one
    kinds: list[tuple[torch.Size, torch.dtype]]  # shapes and dtypes of the differentiable inputs


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        scores: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        tags: Tensor,
        rows: Rows,
        observed: Tensor | None,
    ) -> Tensor:
        ctx.rows, ctx.kinds = rows, [(part.shape, part.dtype) for part in (scores, start, transitions, end)]
        result = torch.zeros(rows.n_rows, dtype=torch.float64, device=scores.device)
        if rows.n_tokens == 0:
            return result
        chain = Chain(start, transitions, end)
        both = any(ctx.needs_input_grad)
        ctx.sums, ctx.tags, ctx.partial = path_sums(scores, chain, rows, both), tags, None
        if observed is None:
            result.index_copy_(0, rows.time_major.row_order, ctx.sums.log_z)
            return result.sub_(path_scores(scores, tags, chain, rows))
        # The paths that agree with the observed tags are those that remain if all other tags have the score -inf.
        other = torch.ones_like(scores, dtype=torch.bool).scatter_(1, tags[:, None], False) & observed[:, None]
        ctx.partial = path_sums(scores.masked_fill(other, -torch.inf), chain, rows, both)
        return result.index_copy_(0, rows.time_major.row_order, ctx.sums.log_z - ctx.partial.log_z)

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients: expected counts over all paths minus those over the paths that were given."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a CRF likelihood cannot be differentiated again; use create_graph=False"
            )
        rows = ctx.rows
        if rows.n_tokens == 0:
            zeros = (torch.zeros(shape, dtype=dtype, device=grad.device) for shape, dtype in ctx.kinds)
            return (*zeros, None, None, None)
        # Each gradient is an expectation over all paths minus an observation on the given path. Every token is weighted
        # by the incoming gradient of its row; the transition into a row's first token does not exist, so its weight
        # is 0, which also cancels the pairs that `roll` forms across rows.
        weights = grad.index_select(0, rows.row)
        inner = weights.masked_fill(rows.position == 0, 0.0)
        token_grad = ctx.sums.token_marginals() * weights[:, None]
        pair_grad = ctx.sums.pair_sums(inner)
        if ctx.partial is not None:
            token_grad -= ctx.partial.token_marginals() * weights[:, None]
            pair_grad -= ctx.partial.pair_sums(inner)
        else:
            token_grad.scatter_add_(1, ctx.tags[:, None], -weights[:, None])
            steps = ctx.tags.roll(1) * token_grad.shape[1] + ctx.tags
            pair_grad.view(-1).index_add_(0, steps, inner, alpha=-1)
        # start and end scores are used exactly by the tags of first and last tokens, so their gradients are sums
        start_grad, end_grad = (token_grad.index_select(0, places).sum(0) for places in rows.ends)
        grads = (token_grad, start_grad, pair_grad, end_grad)
        return (*(part.to(dtype) for part, (_, dtype) in zip(grads, ctx.kinds, strict=True)), None, None, None)
