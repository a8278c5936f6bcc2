"""Calibration: a model is calibrated if predictions of probability p are correct in a share p of the cases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 10  # bins of equal width over [0, 1]


def calibration(probability: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> dict[str, object]:
    """Return reliability by bins of probability, and the expected calibration error (Naeini et al. 2015).

    Args:
        probability: (N,) probability of the predicted class, 0 to 1.
        correct: (N,) true where the prediction is correct.

    Returns:
        `ece`: sum over bins of (share of the predictions) x |accuracy - confidence|, in percent. `bins`: for each
        non-empty bin `from` and `to` (probabilities), `count`, `confidence` (mean probability) and `accuracy`, the
        last two in percent.
    """
    probability = probability.astype(np.float64)
    # Bins are closed on the right, so that 1.0 falls into the last one.
    bin_of = np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(bin_of, minlength=BINS)
    confidence, accuracy = (
        100 * np.bincount(bin_of, weights=values, minlength=BINS) / np.maximum(count, 1)
        for values in (probability, correct)
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
