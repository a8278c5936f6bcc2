"""An n-gram language model: interpolated Kneser-Ney smoothing with three discounts, and a cache of recent tokens.

Modified Kneser-Ney smoothing as in Chen and Goodman (1998, section 3): counts of 1, 2 and 3 or more have separate
discounts, which are estimated from the counts, so there is nothing to tune. In their work and later it does better than
a single discount. The cache is that of Kuhn and De Mori (1990).

Text is a flat array of rows of token ids. The first token of a row is given; every other token is a target, and the
tokens before it in its row are its context.

Shapes: B rows, M tokens, N = M - B targets, V ids, G distinct n-grams of one length, C distinct contexts of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.common.arrays import BoolArray, FloatArray, IntArray

FEW_COUNTS = (0.5, 1.0, 1.5)  # discounts if there are too few counts to estimate them (KenLM's defaults)


@dataclass(frozen=True)
class TokenRows:
    """A text as a flat array of rows of ids."""

    tokens: IntArray  # (M,) from 0 to V - 1
    position: IntArray  # (M,) of each token in its row, from 0

    @classmethod
    def of(cls, tokens: npt.NDArray[np.integer], lengths: IntArray) -> TokenRows:
        """Return rows of `lengths` (B,), which include the given first tokens."""
        starts = np.cumsum(lengths) - lengths
        return cls(tokens.astype(np.int64), np.arange(len(tokens)) - np.repeat(starts, lengths))

    @property
    def is_target(self) -> BoolArray:
        """A mask (M,) of the targets: all tokens except the first of each row."""
        return self.position > 0


class _Grams(NamedTuple):
    """The statistics of all n-grams of one length. The id of an n-gram is the index of its key."""

    keys: IntArray  # (G,) sorted: the id of the n-gram's first n - 1 tokens, times V, plus its last token
    share: FloatArray  # (G,) discounted count of the n-gram over the total of its context
    back_off: FloatArray  # (C,) probability left for shorter n-grams; 1 if nothing ever followed the context


class KneserNey:
    """An n-gram model of P(target | up to `order` - 1 tokens before it in its row).

    P_n(w | c) = max(0, count(c w) - D) / total(c) + back_off(c) P_{n-1}(w | c without its first token), where D is the
    discount of that count, and total and back_off make it sum to one. Counts of the longest n-grams are occurrences.
    Counts of shorter ones are continuation counts: the number of distinct tokens before them, plus their occurrences at
    the start of a row, where no token is before them. Unigrams are interpolated with `base`. An unseen context backs
    off entirely to the shorter one.

    Args:
        text: the training text.
        base: (V,) probabilities that sum to 1. Ids with probability 0 are never predicted; all others always can be.
        order: length of the longest n-grams, at least 1.

    Raises:
        ValueError: an order below 1, or a target of `text` with `base` probability 0.
    """

    def __init__(self, text: TokenRows, base: FloatArray, order: int) -> None:
        if order < 1:
            raise ValueError(f"order={order}: it must be at least 1")
        if (base[text.tokens[text.is_target]] == 0).any():
            raise ValueError("a target of the text has base probability 0; give every target a positive one")
        self.base = base
        self._grams = tuple(_learn(text, len(base), order))

    def probabilities(self, text: TokenRows) -> FloatArray:
        """Return the probability (N,) of each target of `text`."""
        ids, is_target = text.tokens, text.is_target
        # Interpolate from unigrams up. `ids` are those of the n-grams that end at each token: those of one length,
        # shifted by one token, are the contexts of the next.
        probabilities = self.base[text.tokens]
        for n, grams in enumerate(self._grams, start=1):
            contexts = _contexts(ids, text.position, n)
            ids = text.tokens if n == 1 else _find(grams.keys, contexts * len(self.base) + text.tokens, contexts >= 0)
            share = np.where(ids >= 0, grams.share[ids], 0.0)
            probabilities = share + np.where(contexts >= 0, grams.back_off[contexts], 1.0) * probabilities
        return probabilities[is_target]


def with_cache(probabilities: FloatArray, text: TokenRows, weight: float, window: int) -> FloatArray:
    """Interpolate probabilities (N,) with a cache: the target's relative frequency among those before it in its row.

    The frequency, of weight 0 to 1, is over the last `window` targets, or fewer near the start of a row. The first
    target of a row has nothing in the cache and keeps its probability.
    """
    tokens, before = text.tokens[text.is_target], text.position[text.is_target] - 1
    places = np.arange(len(tokens))
    lengths = np.minimum(before, window)
    # Sorted by (token, place), all occurrences of a token are contiguous and in the order of the text. So the number
    # of occurrences inside the window is the difference of two ranks, without a loop over the window.
    keys = tokens * len(tokens) + places
    occurrences = np.sort(keys)
    counts = np.searchsorted(occurrences, keys) - np.searchsorted(occurrences, keys - lengths)
    share = counts / np.maximum(lengths, 1)
    return np.where(lengths > 0, (1.0 - weight) * probabilities + weight * share, probabilities)


def discounts(counts: IntArray) -> FloatArray:
    """Return the discounts (4,) of counts of 0, 1, 2 and 3 or more: Chen and Goodman (1998), equation 17.

    They are `FEW_COUNTS` if no n-gram has a count of 1, 2, 3 or 4, or if an estimate is not positive.
    """
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    positive = np.array(FEW_COUNTS)
    if seen.all():
        y = seen[0] / (seen[0] + 2 * seen[1])
        estimates = np.arange(1, 4) - np.arange(2, 5) * y * seen[1:] / seen[:-1]
        if (estimates > 0).all():
            positive = estimates
    return np.concatenate([[0.0], positive])


def _learn(text: TokenRows, n_ids: int, order: int) -> Iterator[_Grams]:
    """Yield the statistics of n-grams of each length, from 1 to `order` or to the longest that occur."""
    tokens, position = text.tokens, text.position
    # `ids` (M,) are those of the n-grams that end at each token (-1: none), built from the ids of length n - 1.
    keys, ids, contexts = np.arange(n_ids), tokens, np.zeros(n_ids, dtype=np.int64)
    n_contexts = 1
    for n in range(1, order + 1):
        if n == order:
            counted = ids[position >= max(1, n - 1)]
        else:
            longer = _contexts(ids, position, n + 1)
            ends = np.flatnonzero(longer >= 0)  # tokens at which an (n+1)-gram ends
            grams = longer[ends] * n_ids + tokens[ends]
            next_keys, first, next_ids = np.unique(grams, return_index=True, return_inverse=True)
            # Continuation counts: each distinct (n+1)-gram counts once for the n-gram it ends with, whatever its
            # frequency; n-grams at the start of a row have no token before them and count as they occur.
            row_starts = (position == n - 1) & text.is_target
            counted = np.concatenate([ids[ends[first]], ids[row_starts]])
        yield _estimate(keys, np.bincount(counted, minlength=len(keys)), contexts, n_contexts)
        if n < order:
            if not len(next_keys):
                return  # all rows are shorter
            n_contexts, keys, contexts = len(keys), next_keys, next_keys // n_ids
            ids = np.full(len(tokens), -1)
            ids[ends] = next_ids


def _estimate(keys: IntArray, counts: IntArray, contexts: IntArray, n_contexts: int) -> _Grams:
    """Return the statistics of n-grams with these keys (G,), counts (G,) and contexts (G,)."""
    discount = discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=n_contexts)
    discounted = np.bincount(contexts, weights=discount, minlength=n_contexts)
    followed = totals > 0
    totals = np.where(followed, totals, 1.0)
    return _Grams(keys, (counts - discount) / totals[contexts], np.where(followed, discounted / totals, 1.0))


def _contexts(ids: IntArray, position: IntArray, n: int) -> IntArray:
    """Return the id (M,) of the (n-1)-gram before each token, from the `ids` (M,) of those that end at each token.

    It is -1 if the (n-1)-gram is unknown or would cross the start of the row.
    """
    if n == 1:
        return np.zeros(len(ids), dtype=np.int64)
    before = np.roll(ids, 1)
    before[position < n - 1] = -1
    return before


def _find(keys: IntArray, queries: IntArray, possible: BoolArray) -> IntArray:
    """Return the indices (M,) of `queries` (M,) in the sorted `keys` (G,); -1 if missing or not `possible`."""
    places = np.searchsorted(keys, queries)
    is_key = possible & (places < len(keys))
    is_key[is_key] = keys[places[is_key]] == queries[is_key]
    return np.where(is_key, places, -1)
