"""Whether a metric's figures depend on how the examples are cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from runner.audit.checks import verdict as kinds
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.observe import AdapterError

Figures = Callable[[Sequence[Sequence[int]]], dict[str, Any]]  # batches of examples -> what the metric computes
ALLOWED = 1e-9  # relative: a metric is a handful of sums


def metric_verdict(name: str, figures: Figures, rows: Sequence[int]) -> Verdict:
    """All examples at once, against one at a time, three at a time, and in reverse order.

    Args:
        name: of the subject.
        figures: batches -> figures; only numbers are compared.
        rows: the examples.

    Raises:
        AdapterError: a metric without a figure that is a number.
    """
    if not rows:
        return Verdict(name, "metric", "eval", None, reason="no example has an answer in numbers")
    whole = _numbers(figures([rows]))
    cuts: dict[str, list[Sequence[int]]] = {
        "one at a time": [[row] for row in rows],
        "three at a time": [rows[at : at + 3] for at in range(0, len(rows), 3)],
        "in reverse order": [rows[::-1]],
    }
    worst = 0.0
    for cut, batches in cuts.items():
        for figure, value in _numbers(figures(batches)).items():
            share = _share(value, whole[figure])
            worst = max(worst, share)
            if share > 1.0:
                found = _finding(figure, cut, value, whole[figure], rows)
                return Verdict(name, "metric", "eval", False, share, found)
    return Verdict(name, "metric", "eval", True, worst)


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Figures that are one number each; tables and names are left out."""
    found = {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    }
    if not found:
        raise AdapterError(f"metric.compute gave no number; got {figures!r:.80}")
    return found


def _share(mine: float, theirs: float) -> float:
    if mine == theirs or (math.isnan(mine) and math.isnan(theirs)):
        return 0.0
    found = abs(mine - theirs) / (ALLOWED * max(1.0, abs(theirs)))
    return found if found == found else math.inf


def _finding(figure: str, cut: str, mine: float, theirs: float, rows: Sequence[int]) -> Finding:
    detail = f"{figure} is {theirs:.6g} over one batch of all examples, and {mine:.6g} over batches {cut}."
    return Finding(
        "metric", kinds.METRIC, figure, tuple(rows), abs(mine - theirs), ALLOWED * max(1.0, abs(theirs)), detail
    )
