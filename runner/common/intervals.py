"""The half-width of a Student t interval, for the summary of repeated runs and for comparisons."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def half_width(values: Sequence[float], confidence: float) -> float:
    """Return t(n-1, (1+confidence)/2) * s / sqrt(n), s the standard deviation of n >= 2 values."""
    return student_quantile(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))


def student_quantile(df: int, confidence: float) -> float:
    """Return the quantile of Student's t that bounds a two-sided interval."""
    from scipy.special import stdtrit  # equals scipy.stats.t.ppf, but scipy.stats takes a second to import

    return float(stdtrit(df, (1 + confidence) / 2))
