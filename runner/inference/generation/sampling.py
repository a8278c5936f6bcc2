"""Generation token by token, with the likeliest token or a random draw.

Shapes: R rows that are being continued, V strings of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import FloatArray, IntArray
from runner.encoders.carried_state import select_state
from runner.inference.generation.language_model import LanguageModel, Prompts
from runner.layers.dropout import splitmix64

_RANDOM_BITS = 52  # random bits of a uniform number: in float64 it is then exact, and neither 0 nor 1


@dataclass(frozen=True)
class Continuation:
    """A continuation of a prompt."""

    tokens: list[int]  # ids; in a stream, `<eos>` among them ends a line
    log_p: float  # natural logarithm of the model's own probability of `tokens`, and of `<eos>` where it ended them
    score: float  # score by which continuations are ranked; `log_p`, unless a beam's length penalty changes it
    ended: bool  # True if `<eos>` followed; False if the largest number of tokens was reached


class GenerationStep(NamedTuple):
    """The tokens of one step: the `rows` (R,) that still continue, the token (R,) of each, and its log P (R,)."""

    rows: IntArray
    tokens: IntArray
    log_p: FloatArray


# chooses the next tokens: (R, V) log P, -inf for forbidden ones; rows (R,); step -> (R,) ids
Choice = Callable[[Tensor, IntArray, int], Tensor]


def likeliest(log_p: Tensor, rows: IntArray, step: int) -> Tensor:
    """Choose the likeliest token of each row; of equally likely ones the first."""
    return log_p.argmax(dim=1)


@dataclass(frozen=True)
class Sampling:
    """Random draws from the model's distribution, after temperature, top-k and top-p in this order.

    The draw of a row is a function of its key and the step only, so it does not depend on the other rows.

    Attributes:
        keys: (number of rows,) int64, one key for each row; see `keys_of`.
        temperature: divisor of log P, above 0. Near 0 the likeliest token is drawn, far above 1 any token.
        top_k: keep only the `top_k` likeliest tokens (Fan et al. 2018); None: all.
        top_p: keep only the nucleus (Holtzman et al. 2020): the smallest set of likeliest tokens whose probability sums
            to at least `top_p`, above 0 and at most 1; None: all. Like top-k, it keeps ties with the last token kept.
    """

    keys: Tensor
    temperature: float
    top_k: int | None
    top_p: float | None

    def __call__(self, log_p: Tensor, rows: IntArray, step: int) -> Tensor:
        """Draw by the Gumbel-max trick: the argmax of log weight + Gumbel noise has probability ~ weight."""
        # Counter-based random numbers: row key x step x token id -> bits, the same whichever rows are left.
        row_keys = self.keys.index_select(0, torch.from_numpy(rows).to(self.keys.device))
        keys = splitmix64(row_keys, torch.full_like(row_keys, step))
        bits = splitmix64(keys[:, None], torch.arange(log_p.shape[1], device=keys.device))
        uniform = (((bits >> (64 - _RANDOM_BITS)) & (2**_RANDOM_BITS - 1)).double() + 0.5) / 2.0**_RANDOM_BITS
        noise = -(-uniform.log()).log()
        chosen: Tensor = (self.weights(log_p) + noise).argmax(dim=1)
        return chosen

    def weights(self, log_p: Tensor) -> Tensor:
        """Turn (R, V) log P into log weights, unnormalised, with -inf for tokens that are left out."""
        weights: Tensor = (log_p - log_p.amax(dim=1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < weights.shape[1]:
            least = weights.topk(self.top_k, dim=1).values[:, -1:]
            weights = weights.masked_fill(weights < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            shares = weights.softmax(dim=1)
            falling = shares.sort(dim=1, descending=True).values
            above = falling.cumsum(dim=1) - falling  # total probability of the likelier tokens
            least = falling.masked_fill(above >= self.top_p, torch.inf).amin(dim=1, keepdim=True)
            weights = weights.masked_fill(shares < least, -torch.inf)
        return weights


def keys_of(seed: int, prompts: Sequence[int], samples: int, device: torch.device) -> Tensor:
    """Return the random keys of all samples, (prompts * samples,) int64, from the numbers of the prompts."""
    root = splitmix64(torch.tensor(seed), torch.tensor(0))
    numbers = torch.tensor(prompts, dtype=torch.int64).repeat_interleave(samples)
    return splitmix64(splitmix64(root, numbers), torch.arange(samples).repeat(len(prompts))).to(device)


def steps(
    model: LanguageModel, prompts: Prompts, samples: int, choose: Choice, max_tokens: int
) -> Iterator[GenerationStep]:
    """Continue each prompt `samples` times, all rows by one token per step.

    Rows are numbered prompt by prompt, sample by sample. Rows that have ended leave the batch and cost nothing.
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
        yield GenerationStep(rows, tokens, log_p.gather(1, chosen[:, None])[:, 0].cpu().numpy())
        active = np.flatnonzero(tokens != model.end) if model.end is not None else np.arange(len(rows))
        if not len(active):
            return
        if len(active) < len(rows):
            rows, tokens, state = rows[active], tokens[active], select_state(state, active)
        inputs = prompts.inputs(tokens)


def collect(
    all_steps: Iterable[GenerationStep], model: LanguageModel, n_prompts: int, samples: int
) -> list[list[Continuation]]:
    """Collect steps into the continuations of each prompt, the likeliest first."""
    tokens: list[list[int]] = [[] for _ in range(n_prompts * samples)]
    log_p = np.zeros(len(tokens))
    ended = np.zeros(len(tokens), dtype=np.bool_)
    for step in all_steps:
        log_p[step.rows] += step.log_p
        for row, token in zip(step.rows.tolist(), step.tokens.tolist(), strict=True):
            if token == model.end:
                ended[row] = True
            else:
                tokens[row].append(token)
    rows = zip(tokens, log_p.tolist(), ended.tolist(), strict=True)
    continuations = [Continuation(ids, likelihood, likelihood, end) for ids, likelihood, end in rows]
    return [ranked(continuations[row : row + samples]) for row in range(0, len(continuations), samples)]


def ranked(continuations: Iterable[Continuation]) -> list[Continuation]:
    """Sort by falling score; continuations of equal score keep their order."""
    return sorted(continuations, key=lambda continuation: -continuation.score)
