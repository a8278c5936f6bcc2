"""A linear-chain conditional random field (Lafferty et al. 2001): exact, batched, on packed and on padded rows.

Work is done for real tokens alone, over time steps on which only the rows run that have not ended.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from runner.layers.crf.chain import Allowed, Chain
from runner.layers.crf.likelihood import log_partition, negative_log_likelihood, token_marginals
from runner.layers.crf.viterbi import k_best, viterbi
from runner.ragged.ragged import Ragged

Constrain = Literal["none", "train", "decode", "both"]


class Crf(nn.Module):
    """Scores of starts, transitions and ends, learned with the tags' own.

    Args:
        n_tags: C.
        allowed: which tags may begin a row, follow one another, and end a row.
        constrain: where what is not allowed is forbidden: in the likelihood (train), in the best paths and marginals
            (decode), in both, or nowhere.
    """

    may_start: Tensor
    may_follow: Tensor
    may_end: Tensor

    def __init__(self, n_tags: int, allowed: Allowed, constrain: Constrain) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(n_tags))
        self.transitions = nn.Parameter(torch.empty(n_tags, n_tags))
        self.end = nn.Parameter(torch.empty(n_tags))
        for parameter in (self.start, self.transitions, self.end):
            nn.init.uniform_(parameter, -0.1, 0.1)
        self.constrain = constrain
        self.register_buffer("may_start", allowed.start, persistent=False)
        self.register_buffer("may_follow", allowed.transitions, persistent=False)
        self.register_buffer("may_end", allowed.end, persistent=False)

    def chain(self, purpose: Literal["train", "decode"]) -> Chain:
        """The scores, with -inf for what is forbidden for that purpose."""
        chain = Chain(self.start, self.transitions, self.end)
        if self.constrain not in (purpose, "both"):
            return chain
        return Allowed(self.may_start, self.may_follow, self.may_end).restrict(chain)

    def negative_log_likelihood(self, scores: Ragged, tags: Tensor) -> Tensor:
        """(B,) nats, float64: -log p(tags | scores) of each row; 0 for empty rows, inf for paths that are forbidden.

        Args:
            scores: rows of (length, C).
            tags: (N,) int64 ids of the real tokens.
        """
        return negative_log_likelihood(scores.tokens(), tags, self.chain("train"), scores.rows)

    def decode(self, scores: Ragged) -> Tensor:
        """(N,) int64: the tags of each row's best path."""
        return viterbi(scores.tokens(), self.chain("decode"), scores.rows)[0]

    def k_best(self, scores: Ragged, k: int) -> tuple[Tensor, Tensor]:
        """(N, K) the tags of each row's K best paths, and (B, K) their log probabilities; -inf: there are no more."""
        tokens, chain = scores.tokens(), self.chain("decode")
        tags, found = k_best(tokens, chain, scores.rows, k)
        return tags, found - log_partition(tokens, chain, scores.rows)[:, None]

    def marginals(self, scores: Ragged) -> Tensor:
        """(N, C) float64: the probability of each tag of each token. No gradient flows."""
        return token_marginals(scores.tokens(), self.chain("decode"), scores.rows)
