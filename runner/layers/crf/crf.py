"""A linear-chain conditional random field (Lafferty et al. 2001): exact, batched, for packed and padded rows.

Only real tokens are computed: each time step runs over the rows that have not ended.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from runner.layers.crf.chain import AllowedTransitions, Chain
from runner.layers.crf.likelihood import negative_log_likelihood, token_marginals
from runner.layers.crf.viterbi import viterbi
from runner.ragged.ragged import Ragged

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

    def negative_log_likelihood(self, scores: Ragged, tags: Tensor) -> Tensor:
        """Return -log p(tags | scores) of each row, (B,) float64, for scores of (length, C) and tags (N,) int64."""
        return negative_log_likelihood(scores.tokens(), tags, self.chain("train"), scores.rows)

    def decode(self, scores: Ragged) -> Tensor:
        """Return the tags of each row's best path, (N,) int64."""
        return viterbi(scores.tokens(), self.chain("decode"), scores.rows)[0]

    def marginals(self, scores: Ragged) -> Tensor:
        """Return the probability of each tag at each token, (N, C) float64, without gradient."""
        return token_marginals(scores.tokens(), self.chain("decode"), scores.rows)
