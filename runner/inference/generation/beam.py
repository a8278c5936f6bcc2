"""Beam search: the likeliest continuations that a search with a bounded number of hypotheses finds.

A hypothesis that ends keeps its place in the beam, and the search continues with the remaining places (Sutskever et al.
2014). A beam of width 1 is therefore the greedy choice, and a beam wide enough for all continuations is exhaustive.

Shapes: R active hypotheses of all prompts together; K candidates for the next token of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from runner.common.arrays import FloatArray, IntArray
from runner.encoders.carried_state import select_state
from runner.inference.generation.language_model import LanguageModel, Prompts
from runner.inference.generation.sampling import Continuation, ranked


@dataclass(frozen=True)
class Beam:
    """The parameters of a beam search.

    Attributes:
        length_penalty: alpha of Wu et al. (2016, equation 14): the score is log P / ((5 + length) / 6)**alpha, where
            length includes `<eos>`. 0 ranks by log P, which favours short continuations; larger values longer ones.
    """

    width: int  # hypotheses per prompt, including those that have ended
    length_penalty: float
    n_best: int  # number of continuations to return for each prompt, at most `width`

    def score(self, log_p: float, length: int) -> float:
        """Return the score of `length` tokens, `<eos>` included."""
        return log_p / self._penalty(length)

    def bound(self, log_p: float, length: int, max_tokens: int) -> float:
        """Return the highest score that a hypothesis of `length` tokens can still reach, since log P only falls."""
        return log_p / max(self._penalty(length + 1), self._penalty(max_tokens))

    def _penalty(self, length: int) -> float:
        return float(((5 + length) / 6) ** self.length_penalty)


class _Hypotheses(NamedTuple):
    """The active hypotheses: their prompt (R,), tokens (R, length) and log P (R,)."""

    prompt: IntArray
    tokens: IntArray
    log_p: FloatArray


def beam_search(model: LanguageModel, prompts: Prompts, beam: Beam, max_tokens: int) -> list[list[Continuation]]:
    """Return the `n_best` continuations of each prompt, by falling score; fewer if there are no more."""
    n = len(prompts)
    done: list[list[Continuation]] = [[] for _ in range(n)]
    active = _Hypotheses(np.arange(n), np.zeros((n, 0), dtype=np.int64), np.zeros(n))
    state, inputs = (model.read(prompts), prompts.last) if n else (None, {})
    for length in range(1, max_tokens + 1):
        if not len(active.prompt):
            break
        log_p, state = model.step(inputs, state)
        log_p = log_p.masked_fill(model.forbidden, -torch.inf)
        best, candidates = log_p.topk(min(beam.width, log_p.shape[1]), dim=1)
        # A finished hypothesis keeps its place, so a prompt extends only as many hypotheses as it has places left.
        room = beam.width - np.array([len(continuations) for continuations in done])
        parents, tokens, total = _best_extensions(active, best.cpu().numpy(), candidates.cpu().numpy(), room)
        ends = tokens == (-1 if model.end is None else model.end)
        for row in np.flatnonzero(ends).tolist():
            likelihood, before = float(total[row]), active.tokens[parents[row]].tolist()
            continuation = Continuation(before, likelihood, beam.score(likelihood, length), ended=True)
            done[active.prompt[parents[row]]].append(continuation)
        longer = np.concatenate([active.tokens[parents], tokens[:, None]], axis=1)
        active = _Hypotheses(active.prompt[parents], longer, total)
        highest = np.full(n, -np.inf)
        np.maximum.at(highest, active.prompt[~ends], active.log_p[~ends])
        # A prompt is decided if no active hypothesis can still score more than the last of its n best.
        decided = np.zeros(n, dtype=np.bool_)
        for prompt, ended in enumerate(done):
            if len(ended) >= beam.n_best and np.isfinite(highest[prompt]):
                last = ranked(ended)[beam.n_best - 1].score
                decided[prompt] = beam.bound(float(highest[prompt]), length, max_tokens) <= last
        kept = np.flatnonzero(~ends & ~decided[active.prompt])
        active = _Hypotheses(active.prompt[kept], active.tokens[kept], active.log_p[kept])
        # Each surviving extension continues from the state of its parent, which several extensions may share.
        state, inputs = select_state(state, parents[kept]), prompts.inputs(tokens[kept])
    for row, prompt in enumerate(active.prompt.tolist()):
        likelihood = float(active.log_p[row])
        score = beam.score(likelihood, max_tokens)
        done[prompt].append(Continuation(active.tokens[row].tolist(), likelihood, score, ended=False))
    return [ranked(continuations)[: beam.n_best] for continuations in done]


def _best_extensions(
    active: _Hypotheses, log_p: FloatArray, tokens: IntArray, room: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Choose each prompt's likeliest extensions, as many as it has room for, out of (R, K) candidates.

    Returns the parent hypothesis, the token and the log P of each extension.
    """
    total = (active.log_p[:, None] + log_p).ravel()
    parent = np.repeat(np.arange(len(active.prompt)), log_p.shape[1])
    prompt = active.prompt[parent]
    # Sorted by prompt, then by falling log P, a candidate's rank within its prompt is its distance from the prompt's
    # first candidate. The sort is stable, so ties go to the better parent.
    order = np.lexsort((-total, prompt))
    rank = np.arange(len(order)) - np.searchsorted(prompt[order], prompt[order])
    order = order[(rank < room[prompt[order]]) & np.isfinite(total[order])]
    return parent[order], tokens.ravel()[order], total[order]
