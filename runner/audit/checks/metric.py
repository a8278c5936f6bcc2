"""The check `metric`: the metric's values must not depend on how the examples are split into batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

from torch import Tensor

from runner.audit.checks import kinds
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.observe import AdapterError

# batches of examples -> values of the metric
MetricOfBatches = Callable[[Sequence[Sequence[int]]], Mapping[str, object]]
ALLOWED = 1e-9  # relative difference; a metric consists of few sums, so rounding is small
NO_OUTPUT = "no example has an output without NaN"


def metric_verdict(name: str, figures: MetricOfBatches, rows: Sequence[int]) -> Verdict:
    """Compare the metric over one batch of all examples with that over smaller batches, and in reverse order.

    Only numbers are compared.

    Raises:
        AdapterError: the metric computes no number.
    """
    if not rows:
        return Verdict(name, "metric", "eval", None, reason=NO_OUTPUT)
    whole = _numbers(figures([rows]))
    splits: dict[str, list[Sequence[int]]] = {
        "batches of one example": [[row] for row in rows],
        "batches of three": [rows[start : start + 3] for start in range(0, len(rows), 3)],
        "one batch in reverse order": [rows[::-1]],
    }
    worst = 0.0
    for split, batches in splits.items():
        for figure, value in _numbers(figures(batches)).items():
            expected = whole[figure]
            size, allowed = abs(value - expected), ALLOWED * max(1.0, abs(expected))
            if value == expected or (math.isnan(value) and math.isnan(expected)):
                continue
            share = math.inf if math.isnan(size) else size / allowed
            worst = max(worst, share)
            if share > 1.0:
                detail = f"{figure} is {expected:.6g} over one batch of all examples, and {value:.6g} over {split}."
                finding = Finding("metric", kinds.METRIC, figure, tuple(rows), size, allowed, detail)
                return Verdict(name, "metric", "eval", False, share, finding)
    return Verdict(name, "metric", "eval", True, worst)


def _numbers(figures: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are single numbers; tables and names are left out."""
    numbers = {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    }
    if not numbers:
        raise AdapterError(
            f"metric.compute() returned no number, got {figures!r:.80}; return a dict of numbers by name"
        )
    return numbers
