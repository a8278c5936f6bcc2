"""Going on token by token: the likeliest one, or one that is drawn.

Shapes: R rows that are being continued, V strings of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.encoders.carried_state import select_state
from runner.inference.generation.language_model import LanguageModel, Prompts
from runner.layers.dropout import drawn

_RANDOM_BITS = 52  # so that all of (0, 1) below is exact in float64, and neither 0 nor 1


@dataclass(frozen=True)
class Continuation:
    """What follows a prompt.

    Attributes:
        tokens: ids; `<eos>` among them ends a line of a stream.
        log_p: natural logarithm of the model's own probability of `tokens`, and of `<eos>` where it ended them.
        score: by which continuations are ranked; `log_p`, unless a beam's length penalty changes it.
        ended: whether `<eos>` followed; else they were cut at the largest number of tokens.
    """

    tokens: list[int]
    log_p: float
    score: float
    ended: bool


class Step(NamedTuple):
    """What one step adds: `rows` (R,) that still go on, the token (R,) of each, and its log P (R,)."""

    rows: IntArray
    tokens: IntArray
    log_p: npt.NDArray[np.float64]


class Choice(Protocol):
    def __call__(self, log_p: Tensor, rows: IntArray, step: int) -> Tensor:
        """(R, V) log P, -inf for what is not to be said -> (R,) ids."""
        ...


def likeliest(log_p: Tensor, rows: IntArray, step: int) -> Tensor:
    """The greedy choice; of equal ones the first."""
    return log_p.argmax(dim=1)


@dataclass(frozen=True)
class Sampling:
    """Draws from the model's distribution, changed in this order.

    What a row draws is a function of its key and the step alone, so it is the same in any company.

    Attributes:
        keys: (number of rows,) int64, one for each row; see `keys_of`.
        temperature: log P is divided by it; above 0. Near 0 the likeliest token is drawn, far above 1 any.
        top_k: only so many tokens, the likeliest ones (Fan et al. 2018); None: all.
        top_p: only the nucleus (Holtzman et al. 2020): the smallest set of likeliest tokens that has this share of the
            probability, above 0 to 1; None: all. Both keep also what is as likely as the last that they keep.
    """

    keys: Tensor
    temperature: float
    top_k: int | None
    top_p: float | None

    def __call__(self, log_p: Tensor, rows: IntArray, step: int) -> Tensor:
        """By the Gumbel-max trick: argmax of log weight + noise is a draw in proportion to weights."""
        own = self.keys.index_select(0, torch.from_numpy(rows).to(self.keys.device))
        keys = drawn(own, torch.full_like(own, step))
        bits = drawn(keys[:, None], torch.arange(log_p.shape[1], device=keys.device))
        uniform = (((bits >> (64 - _RANDOM_BITS)) & (2**_RANDOM_BITS - 1)).double() + 0.5) / 2.0**_RANDOM_BITS
        noise = -(-uniform.log()).log()
        chosen: Tensor = (self.weights(log_p) + noise).argmax(dim=1)
        return chosen

    def weights(self, log_p: Tensor) -> Tensor:
        """(R, V) log P -> log weights that need not sum to one; -inf for tokens that are left out."""
        weights: Tensor = (log_p - log_p.amax(dim=1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < weights.shape[1]:
            least = weights.topk(self.top_k, dim=1).values[:, -1:]
            weights = weights.masked_fill(weights < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            shares = weights.softmax(dim=1)
            falling = shares.sort(dim=1, descending=True).values
            above = falling.cumsum(dim=1) - falling
            least = falling.masked_fill(above >= self.top_p, torch.inf).amin(dim=1, keepdim=True)
            weights = weights.masked_fill(shares < least, -torch.inf)
        return weights


def keys_of(seed: int, prompts: Sequence[int], samples: int, device: torch.device) -> Tensor:
    """(prompts * samples,) int64: what each sample of each prompt draws from, by the prompt's number in the input."""
    root = drawn(torch.tensor(seed), torch.tensor(0))
    numbers = torch.tensor(prompts, dtype=torch.int64).repeat_interleave(samples)
    return drawn(drawn(root, numbers), torch.arange(samples).repeat(len(prompts))).to(device)


def steps(model: LanguageModel, prompts: Prompts, samples: int, choose: Choice, max_tokens: int) -> Iterator[Step]:
    """Continue each prompt `samples` times, all rows by one token a step; rows that have ended cost nothing more.

    Rows are numbered prompt by prompt, sample by sample.
    """
    rows = np.arange(len(prompts) * samples)
    if not len(rows):
        return
    state = select_state(model.read(prompts), rows // samples)
    inputs = {name: ids[rows // samples] for name, ids in prompts.last.items()}
    for step in range(max_tokens):
        log_p, state = model.step(inputs, state)
        chosen = choose(log_p.masked_fill(model.forbidden, -torch.inf), rows, step)
        tokens = chosen.cpu().numpy()
        yield Step(rows, tokens, log_p.gather(1, chosen[:, None])[:, 0].cpu().numpy())
        going = np.flatnonzero(tokens != model.end) if model.end is not None else np.arange(len(rows))
        if not len(going):
            return
        if len(going) < len(rows):
            rows, tokens, state = rows[going], tokens[going], select_state(state, going)
        inputs = prompts.inputs(tokens)


def collect(found: Iterable[Step], model: LanguageModel, n_prompts: int, samples: int) -> list[list[Continuation]]:
    """For each prompt its continuations, the likeliest first."""
    tokens: list[list[int]] = [[] for _ in range(n_prompts * samples)]
    log_p = np.zeros(len(tokens))
    ended = np.zeros(len(tokens), dtype=np.bool_)
    for step in found:
        log_p[step.rows] += step.log_p
        for row, token in zip(step.rows.tolist(), step.tokens.tolist(), strict=True):
            if token == model.end:
                ended[row] = True
            else:
                tokens[row].append(token)
    rows = zip(tokens, log_p.tolist(), ended.tolist(), strict=True)
    made = [Continuation(ids, likelihood, likelihood, end) for ids, likelihood, end in rows]
    return [ranked(made[row : row + samples]) for row in range(0, len(made), samples)]


def ranked(continuations: Iterable[Continuation]) -> list[Continuation]:
    """The best score first; of equal ones, the one that was made first."""
    return sorted(continuations, key=lambda one: -one.score)
