"""Detail tables: a language model's perplexity by position in the line and by frequency; and calibration.

Shapes: N tokens or predictions of a split, V strings in the vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.inference.evaluation.tally import perplexity

BINS = 10  # bins of calibration, of equal width over [0, 1]


def by_position(nats: FloatArray, starts_line: BoolArray) -> dict[str, object]:
    """Return the perplexity of the first token of a line, the second, the third and fourth, the fifth to eighth, ...

    `nats` (N,) are -log P of each token; `starts_line` (N,) is true at the first token of each line, and at index 0.

    Returns:
        `bins`, the non-empty ones: `from` and `to` (positions from 1), `tokens`, `nll` (per token), `perplexity`.
    """
    starts = np.flatnonzero(starts_line)
    position = np.arange(len(nats)) - np.repeat(starts, np.diff(starts, append=len(nats)))
    # Bin k holds the positions (1-based) from 2**(k-1) + 1 to 2**k; bin 0 the first.
    ranges = [(2**power // 2 + 1, 2**power) for power in range(64)]
    return {"bins": _bins(nats, np.ceil(np.log2(position + 1)).astype(np.int64), ranges)}


def by_frequency(
    nats: FloatArray, targets: IntArray, counts: IntArray, special_ids: dict[str, int]
) -> dict[str, object]:
    """Return the perplexity of tokens by their frequency in the training set: 0, 1 to 9, 10 to 99, ... occurrences.

    `nats` and `targets` (N,) are -log P of each token, and its id; `counts` (V,) are the occurrences of each string in
    the training set. Strings with `special_ids` are listed separately, outside the bins.

    Returns:
        `bins`: `from` and `to` (occurrences in the training set), `tokens`, `nll` and `perplexity`; `apart`: the last
        three for each special string. Together they cover all tokens.
    """
    ends = [10**power for power in range(19)]
    ranges = [(0, 0), *((end, 10 * end - 1) for end in ends)]
    is_special = np.isin(targets, list(special_ids.values()))
    bin_of = np.searchsorted(ends, counts[targets[~is_special]], side="right")
    nats_of = {string: nats[targets == id_] for string, id_ in special_ids.items()}
    apart = {string: _figures(float(values.sum()), len(values)) for string, values in nats_of.items() if len(values)}
    return {"bins": _bins(nats[~is_special], bin_of, ranges), "apart": apart}


def _bins(nats: FloatArray, bin_of: IntArray, ranges: list[tuple[int, int]]) -> list[dict[str, object]]:
    """Return the figures of each non-empty bin, from the bin (N,) of each token and the bounds of all bins."""
    total, tokens = np.bincount(bin_of, weights=nats), np.bincount(bin_of)
    return [
        {"from": ranges[number][0], "to": ranges[number][1]} | _figures(float(total[number]), int(tokens[number]))
        for number in np.flatnonzero(tokens).tolist()
    ]


def _figures(nats: float, tokens: int) -> dict[str, object]:
    return {"tokens": tokens, "nll": nats / tokens, "perplexity": perplexity(nats / tokens)}


def calibration(probability: npt.NDArray[np.floating], correct: BoolArray) -> dict[str, object]:
    """Return reliability by bins of probability, and the expected calibration error (Naeini et al. 2015).

    A model is calibrated if predictions of probability p are correct in a share p of the cases.

    `probability` (N,) is that of the predicted class, 0 to 1; `correct` (N,) is true where the prediction is.

    Returns:
        `ece`: sum over bins of (share of the predictions) x |accuracy - confidence|, in percent. `bins`: for each
        non-empty bin `from` and `to` (probabilities), `count`, `confidence` (mean probability) and `accuracy`, the
        last two in percent.
    """
    probability = probability.astype(np.float64)
    # Bins are closed on the right, so that 1.0 falls into the last one.
    bin_of = np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(bin_of, minlength=BINS)
    sums = (np.bincount(bin_of, weights=values, minlength=BINS) for values in (probability, correct))
    confidence, accuracy = (100 * total / np.maximum(count, 1) for total in sums)
    edges = np.arange(BINS + 1) / BINS
    columns = {"from": edges[:-1], "to": edges[1:], "count": count, "confidence": confidence, "accuracy": accuracy}
    rows = zip(*(values[count > 0].tolist() for values in columns.values()), strict=True)
    bins = [dict(zip(columns, row, strict=True)) for row in rows]
    return {"ece": float((count * np.abs(accuracy - confidence)).sum() / max(1, count.sum())), "bins": bins}
