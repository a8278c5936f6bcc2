"""Where a language model's perplexity comes from: places in a line, and how often train has a token.

Shapes: N tokens of a split, V strings of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runner.common.arrays import FloatArray, IntArray
from runner.inference.evaluation.tally import perplexity


def by_position(nats: FloatArray, begins: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Perplexity of the first token of lines, the second, the third and fourth, the fifth to eighth, ...

    Args:
        nats: (N,) -log P of each token, in the text's order.
        begins: (N,) true at the first of each line; the first of all is one.

    Returns:
        `bins`, where there are tokens: `from` and `to` (places from 1), `tokens`, `nll` (of one), `perplexity`.
    """
    starts = np.flatnonzero(begins)
    position = np.arange(len(nats)) - np.repeat(starts, np.diff(starts, append=len(nats)))
    ranges = [(2**power // 2 + 1, 2**power) for power in range(64)]
    return {"bins": _bins(nats, np.ceil(np.log2(position + 1)).astype(np.int64), ranges)}


def by_frequency(nats: FloatArray, answers: IntArray, counts: IntArray, apart: dict[str, int]) -> dict[str, Any]:
    """Perplexity of tokens by how often train has them: never, up to 9 times, up to 99 times, ...

    Args:
        nats, answers: (N,) -log P of each token, and its id.
        counts: (V,) of train.
        apart: strings that are shown by themselves, and their ids.

    Returns:
        `bins`: `from` and `to` (occurrences in train), `tokens`, `nll` and `perplexity`; `apart`: the last three by
        string. Together they are all tokens.
    """
    ends = [10**power for power in range(19)]
    ranges = [(0, 0), *((end, 10 * end - 1) for end in ends)]
    is_apart = np.isin(answers, list(apart.values()))
    which = np.searchsorted(ends, counts[answers[~is_apart]], side="right")
    shown = {string: _figures(nats[answers == place]) for string, place in apart.items() if (answers == place).any()}
    return {"bins": _bins(nats[~is_apart], which, ranges), "apart": shown}


def _bins(nats: FloatArray, which: IntArray, ranges: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Of each bin that has tokens; `which` (N,) says the bin of each, whose bounds are its `ranges`."""
    total, tokens = np.bincount(which, weights=nats), np.bincount(which)
    return [
        {"from": ranges[one][0], "to": ranges[one][1]} | _figure(float(total[one]), int(tokens[one]))
        for one in np.flatnonzero(tokens).tolist()
    ]


def _figures(nats: FloatArray) -> dict[str, Any]:
    return _figure(float(nats.sum()), len(nats))


def _figure(nats: float, tokens: int) -> dict[str, Any]:
    return {"tokens": tokens, "nll": nats / tokens, "perplexity": perplexity(nats / tokens)}
