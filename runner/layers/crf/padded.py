"""Best paths and marginals in a padded rectangle, as loops that a traced program can hold (`runner.export`).

Shapes: B rows, T the padded width, C tags. The loops run over all T steps; rows that have ended keep their state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.compat.torch import scan
from runner.layers.crf.chain import Chain


def padded_viterbi(scores: Tensor, chain: Chain, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tags of each row's best path, (B, T) int64, and its score, (B,), for scores (B, T, C).

    Paths are those of `runner.layers.crf.viterbi`, by the same sums in the same order. Tags are arbitrary where `mask`
    (B, T) is false, and so are the scores of empty rows.
    """
    # Every step is in the loop, the first too: a loop over the other steps would be over nothing in rows of one token.
    n_rows, _, n_tags = scores.shape
    same_tag = torch.arange(n_tags, device=scores.device).expand(n_rows, n_tags)

    def forward(reached: Tensor, step: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        own, is_real, is_first = step
        highest, pointer = (reached[:, :, None] + chain.transitions).max(1)
        highest = torch.where(is_first, chain.start, highest) + own
        reached = torch.where(is_real[:, None], highest, reached)
        return reached, torch.where(is_real[:, None] & ~is_first, pointer, same_tag)

    def backward(tags: Tensor, pointer: Tensor) -> tuple[Tensor, Tensor]:
        return pointer.gather(1, tags[:, None])[:, 0], tags.clone()

    reached, pointers = scan(forward, torch.zeros_like(scores[:, 0]), _steps(scores, mask))
    best, last = (reached + chain.end).max(1)
    _, tags = scan(backward, last, pointers, reverse=True)
    return tags.transpose(0, 1), best


def padded_marginals(scores: Tensor, chain: Chain, mask: Tensor) -> Tensor:
    """Return the probability of each tag at each token, (B, T, C), for scores (B, T, C), by sums in the log domain.

    They are arbitrary where `mask` (B, T) is false.
    """

    def forward(reached: Tensor, step: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        own, is_real, is_first = step
        sums = (reached[:, :, None] + chain.transitions).logsumexp(1)
        sums = torch.where(is_first, chain.start, sums) + own
        reached = torch.where(is_real[:, None], sums, reached)
        return reached, reached.clone()

    # The state is the log sum over all ways to continue after a step; at a row's last token it is the score of its end.
    def backward(remaining: Tensor, step: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        own, is_real, is_first = step
        before = (chain.transitions + (own + remaining)[:, None, :]).logsumexp(2)
        before = torch.where(is_real[:, None] & ~is_first, before, remaining)
        return before, remaining.clone()

    steps = _steps(scores, mask)
    _, ahead = scan(forward, torch.zeros_like(scores[:, 0]), steps)
    _, behind = scan(backward, chain.end.expand_as(scores[:, 0]).clone(), steps, reverse=True)
    return (ahead + behind).softmax(-1).transpose(0, 1)


def _steps(scores: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Return by step the tags' scores (T, B, C), which rows are running (T, B), and whether it is the first (T,)."""
    is_first = torch.arange(scores.shape[1], device=scores.device) == 0
    return scores.transpose(0, 1), mask.transpose(0, 1), is_first
