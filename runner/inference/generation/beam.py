"""Beam search: the likeliest continuations that can be found with a bounded number of them in hand.

A continuation that ends keeps its place in the beam, which goes on with the places that are left (Sutskever et al.
2014). So a beam of one is the greedy choice, and one that is wide enough for all continuations is exhaustive.

Shapes: R hypotheses in hand, of all prompts together; K candidates of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from runner.common.arrays import FloatArray, IntArray
from runner.encoders.carried_state import select_state
from runner.inference.generation.language_model import LanguageModel, Prompts
from runner.inference.generation.sampling import Continuation, ranked


@dataclass(frozen=True)
class Beam:
    """How to search.

    Attributes:
        width: hypotheses of a prompt in hand, those that have ended among them.
        length_penalty: alpha of Wu et al. (2016, equation 14): the score is log P / ((5 + length) / 6)**alpha, where
            length counts `<eos>` too. 0 ranks by log P, which favours short ones; above 0 longer ones gain.
        n_best: how many are wanted of each prompt, at most `width`.
    """

    width: int
    length_penalty: float
    n_best: int

    def score(self, log_p: float, length: int) -> float:
        """Of `length` tokens, `<eos>` among them."""
        return log_p / self._penalty(length)

    def bound(self, log_p: float, length: int, max_tokens: int) -> float:
        """What a hypothesis that has `length` tokens can still score: log P only falls."""
        return log_p / max(self._penalty(length + 1), self._penalty(max_tokens))

    def _penalty(self, length: int) -> float:
        return float(((5 + length) / 6) ** self.length_penalty)


@dataclass
class _Hypotheses:
    """In hand, not ended: of which prompt (R,), their tokens (R, length), and their log P (R,)."""

    prompt: IntArray
    tokens: IntArray
    log_p: FloatArray


def beam_search(model: LanguageModel, prompts: Prompts, beam: Beam, max_tokens: int) -> list[list[Continuation]]:
    """For each prompt its `n_best` continuations, the best score first; fewer where there are no more."""
    n = len(prompts)
    done: list[list[Continuation]] = [[] for _ in range(n)]
    hand = _Hypotheses(np.arange(n), np.zeros((n, 0), dtype=np.int64), np.zeros(n))
    state, inputs = (model.read(prompts), prompts.last) if n else (None, {})
    for length in range(1, max_tokens + 1):
        if not len(hand.prompt):
            break
        log_p, state = model.step(inputs, state)
        log_p = log_p.masked_fill(model.forbidden, -torch.inf)
        best, candidates = log_p.topk(min(beam.width, log_p.shape[1]), dim=1)
        room = beam.width - np.array([len(one) for one in done])
        parents, tokens, total = _best(hand, best.cpu().numpy(), candidates.cpu().numpy(), room)
        ends = tokens == model.end if model.end is not None else np.zeros(len(tokens), dtype=np.bool_)
        for row in np.flatnonzero(ends).tolist():
            likelihood, before = float(total[row]), hand.tokens[parents[row]].tolist()
            ended = Continuation(before, likelihood, beam.score(likelihood, length), ended=True)
            done[hand.prompt[parents[row]]].append(ended)
        longer = np.concatenate([hand.tokens[parents], tokens[:, None]], axis=1)
        hand = _Hypotheses(hand.prompt[parents], longer, total)
        kept = np.flatnonzero(~ends & ~_settled(beam, done, hand, ~ends, length, max_tokens)[hand.prompt])
        hand = _Hypotheses(hand.prompt[kept], hand.tokens[kept], hand.log_p[kept])
        state, inputs = select_state(state, parents[kept]), prompts.inputs(tokens[kept])
    for row, prompt in enumerate(hand.prompt.tolist()):
        likelihood = float(hand.log_p[row])
        score = beam.score(likelihood, max_tokens)
        done[prompt].append(Continuation(hand.tokens[row].tolist(), likelihood, score, ended=False))
    return [ranked(one)[: beam.n_best] for one in done]


def _best(
    hand: _Hypotheses, log_p: FloatArray, tokens: IntArray, room: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Of each prompt the likeliest extensions that it has room for, out of (R, K): parents, tokens and log P."""
    total = (hand.log_p[:, None] + log_p).ravel()
    parent = np.repeat(np.arange(len(hand.prompt)), log_p.shape[1])
    prompt = hand.prompt[parent]
    order = np.lexsort((-total, prompt))  # stable: of equal ones the better parent's
    first = np.searchsorted(prompt[order], prompt[order])  # where each prompt's candidates begin
    rank = np.arange(len(order)) - first
    order = order[(rank < room[prompt[order]]) & np.isfinite(total[order])]
    return parent[order], tokens.ravel()[order], total[order]


def _settled(
    beam: Beam, done: list[list[Continuation]], hand: _Hypotheses, going: npt.NDArray[np.bool_], length: int, most: int
) -> npt.NDArray[np.bool_]:
    """Of each prompt, whether it has its n best: nothing that is still going can score more than the last of them."""
    highest = np.full(len(done), -np.inf)
    np.maximum.at(highest, hand.prompt[going], hand.log_p[going])
    settled = np.zeros(len(done), dtype=np.bool_)
    for prompt, ended in enumerate(done):
        if len(ended) >= beam.n_best and np.isfinite(highest[prompt]):
            last = ranked(ended)[beam.n_best - 1].score
            settled[prompt] = beam.bound(float(highest[prompt]), length, most) <= last
    return settled
