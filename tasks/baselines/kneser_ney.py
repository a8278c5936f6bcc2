"""An n-gram language model: interpolated Kneser-Ney smoothing with three discounts, and a cache of recent tokens.

Modified Kneser-Ney as in Chen and Goodman (1998, section 3): a count of 1, of 2 and of more each has a discount of its
own, estimated from the counts themselves, so there is nothing to tune; there and in later work it does better than
one discount. The cache is that of Kuhn and De Mori (1990).

Text is rows of token ids, one after another in one array. The first token of a row is given, each other one is an
answer; what stands before an answer in its row is its context.

Shapes: B rows, M tokens, N = M - B answers, V ids, G different n-grams of one length, C different contexts of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.common.arrays import FloatArray, IntArray

FEW_COUNTS = (0.5, 1.0, 1.5)  # discounts where counts are too few to estimate them (those of KenLM)


@dataclass(frozen=True)
class TokenRows:
    """Text: rows of ids, one after another.

    Attributes:
        tokens: (M,) ids, 0 to below V.
        position: (M,) the place of each in its row, from 0.
    """

    tokens: IntArray
    position: IntArray

    @classmethod
    def of(cls, tokens: npt.NDArray[np.integer], lengths: IntArray) -> TokenRows:
        """Rows of `lengths` (B,), the given first token included."""
        starts = np.cumsum(lengths) - lengths
        return cls(tokens.astype(np.int64), np.arange(len(tokens)) - np.repeat(starts, lengths))

    @property
    def is_answer(self) -> npt.NDArray[np.bool_]:
        """(M,) all but the first of each row."""
        return self.position > 0


@dataclass(frozen=True)
class _Grams:
    """What is known of n-grams of one length. An n-gram's id is the place of its key.

    Attributes:
        keys: (G,) rising: the id of the (n-1)-gram that it begins with, times V, plus its last token.
        share: (G,) its discounted count over the total of its context.
        back_off: (C,) by the context's id: what is left for shorter ones; 1 where nothing ever followed it.
    """

    keys: IntArray
    share: FloatArray
    back_off: FloatArray


class KneserNey:
    """P(answer | up to `order` - 1 tokens before it in its row).

    P_n(w | c) = max(0, count(c w) - D) / total(c) + back_off(c) P_{n-1}(w | c without its first token), where D is the
    discount of that count, and total and back_off are such that it sums to one. Counts of the longest n-grams are
    occurrences; those of shorter ones are how many different tokens stand before them, and occurrences at a row's
    begin, where none does. Single tokens are interpolated with `base`. Unseen contexts leave all to shorter ones.

    Args:
        text: to learn from.
        base: (V,) probabilities, which sum to 1: ids of zero are never predicted, all others always may be.
        order: n of the longest n-grams, at least 1.

    Raises:
        ValueError: an order below 1, or an answer of `text` for which `base` is 0.
    """

    def __init__(self, text: TokenRows, base: FloatArray, order: int) -> None:
        if order < 1:
            raise ValueError(f"order={order}: it must be at least 1")
        if (base[text.tokens[text.is_answer]] == 0).any():
            raise ValueError("a token of the text has base probability 0, but occurs as an answer")
        self.base = base
        self._grams = tuple(_learn(text, len(base), order))

    def probabilities(self, text: TokenRows) -> FloatArray:
        """(N,) of each answer of `text`."""
        ids, answers = text.tokens, text.is_answer
        probabilities = self.base[text.tokens]
        for n, grams in enumerate(self._grams, start=1):
            contexts = _contexts(ids, text.position, n)
            ids = text.tokens if n == 1 else _find(grams.keys, contexts * len(self.base) + text.tokens, contexts >= 0)
            share = np.where(ids >= 0, grams.share[ids], 0.0)
            probabilities = share + np.where(contexts >= 0, grams.back_off[contexts], 1.0) * probabilities
        return probabilities[answers]


def with_cache(probabilities: FloatArray, text: TokenRows, weight: float, window: int) -> FloatArray:
    """(N,) 1 - weight times each, and weight times the answer's share of the `window` answers before it in its row.

    Of fewer, where there are fewer; a row's first answer has none before it and keeps its probability.

    Args:
        probabilities: (N,) of each answer of `text`.
        weight: 0 to 1.
        window: answers, at least 1.
    """
    tokens, before = text.tokens[text.is_answer], text.position[text.is_answer] - 1
    places = np.arange(len(tokens))
    lengths = np.minimum(before, window)
    # a token's occurrences stand together in this order, by place: how many lie in the window is a difference of ranks
    occurrences = np.sort(tokens * len(tokens) + places)
    here = tokens * len(tokens) + places
    counts = np.searchsorted(occurrences, here) - np.searchsorted(occurrences, here - lengths)
    share = counts / np.maximum(lengths, 1)
    return np.where(lengths > 0, (1.0 - weight) * probabilities + weight * share, probabilities)


def discounts(counts: IntArray) -> FloatArray:
    """(4,) what is taken from a count of 0, 1, 2 and 3 or more: Chen and Goodman (1998), equation 17.

    Where no n-gram has a count of 1, of 2, of 3 or of 4, or an estimate is not above 0, they are `FEW_COUNTS`.
    """
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    found = np.array(FEW_COUNTS)
    if seen.all():
        y = seen[0] / (seen[0] + 2 * seen[1])
        estimates = np.arange(1, 4) - np.arange(2, 5) * y * seen[1:] / seen[:-1]
        if (estimates > 0).all():
            found = estimates
    return np.concatenate([[0.0], found])


def _learn(text: TokenRows, n_ids: int, order: int) -> Iterator[_Grams]:
    """What is known of n-grams of each length from 1 to `order`, or to the longest that there are."""
    tokens, position = text.tokens, text.position
    keys, ids, contexts = np.arange(n_ids), tokens, np.zeros(n_ids, dtype=np.int64)
    n_contexts = 1
    for n in range(1, order + 1):
        if n == order:
            counted = ids[position >= max(1, n - 1)]
        else:
            longer = _contexts(ids, position, n + 1)
            there = np.flatnonzero(longer >= 0)
            next_keys, first, found = np.unique(
                longer[there] * n_ids + tokens[there], return_index=True, return_inverse=True
            )
            begins = (position == n - 1) & text.is_answer
            counted = np.concatenate([ids[there[first]], ids[begins]])
        yield _estimate(keys, np.bincount(counted, minlength=len(keys)), contexts, n_contexts)
        if n < order:
            if not len(next_keys):
                return  # no row is that long
            n_contexts, keys, contexts = len(keys), next_keys, next_keys // n_ids
            ids = np.full(len(tokens), -1)
            ids[there] = found


def _estimate(keys: IntArray, counts: IntArray, contexts: IntArray, n_contexts: int) -> _Grams:
    """From the counts (G,) of n-grams with these keys (G,) and contexts (G,)."""
    taken = discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=n_contexts)
    left = np.bincount(contexts, weights=taken, minlength=n_contexts)
    followed = totals > 0
    totals = np.where(followed, totals, 1.0)
    return _Grams(keys, (counts - taken) / totals[contexts], np.where(followed, left / totals, 1.0))


def _contexts(ids: IntArray, position: IntArray, n: int) -> IntArray:
    """(M,) the (n-1)-gram before each token, by the `ids` (M,) of those that end at each; -1: unknown, or none."""
    if n == 1:
        return np.zeros(len(ids), dtype=np.int64)
    before = np.roll(ids, 1)
    before[position < n - 1] = -1
    return before


def _find(keys: IntArray, wanted: IntArray, possible: npt.NDArray[np.bool_]) -> IntArray:
    """(M,) places of `wanted` (M,) in the rising `keys` (G,); -1 for those that are not there or not `possible`."""
    places = np.searchsorted(keys, wanted)
    there = possible & (places < len(keys))
    there[there] = keys[places[there]] == wanted[there]
    return np.where(there, places, -1)
