"""Whether answers of probability p are right in p of the cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10  # of equal width


def calibration(probability: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Reliability by bins of probability, and the expected calibration error (Naeini, Cooper and Hauskrecht 2015).

    Args:
        probability: (N,) of the answer given, 0 to 1.
        right: (N,) whether that answer is right.

    Returns:
        `ece`: sum over bins of (share of the answers) x |accuracy - confidence|, in percent; `bins`: of each that holds
        answers `from`, `to` (probabilities), `count`, `confidence` (mean probability) and `accuracy`, both in percent.
    """
    probability = probability.astype(np.float64)
    # a probability that stands on an edge belongs to the bin below it, as 1.0 must
    place = np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    confidence, accuracy = (
        100 * np.bincount(place, weights=values, minlength=BINS) / np.maximum(count, 1)
        for values in (probability, right)
    )
    bins = [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "count": int(count[number]),
            "confidence": float(confidence[number]),
            "accuracy": float(accuracy[number]),
        }
        for number in np.flatnonzero(count).tolist()
    ]
    return {"ece": float((count * np.abs(accuracy - confidence)).sum() / max(1, count.sum())), "bins": bins}
