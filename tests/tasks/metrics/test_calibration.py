from __future__ import annotations

import numpy as np
import pytest

from tasks.metrics.tables import calibration


def slow_ece(probability: list[float], right: list[bool]) -> float:
    """Compute percentages by the definition, with the bins [0, 0.1], (0.1, 0.2], ..."""
    total = 0.0
    for number in range(10):
        inside = [
            (p, r)
            for p, r in zip(probability, right, strict=True)
            if number / 10 < p <= (number + 1) / 10 or p == number == 0
        ]
        if inside:
            total += abs(sum(r for _, r in inside) - sum(p for p, _ in inside))
    return 100 * total / max(1, len(probability))


def test_against_the_definition() -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(1000)
    right = rng.random(1000) < probability**2
    actual = calibration(probability, right)
    assert actual["ece"] == pytest.approx(slow_ece(probability.tolist(), right.tolist()))
    assert actual["ece"] > 10  # too sure of itself
    assert sum(item["count"] for item in actual["bins"]) == 1000
    assert calibration(probability, rng.random(1000) < probability)["ece"] < 5


def test_by_hand() -> None:
    actual = calibration(np.array([1.0, 0.95, 0.55, 0.0], dtype=np.float32), np.array([True, False, True, False]))
    assert actual["bins"] == [
        {"from": 0.0, "to": 0.1, "count": 1, "confidence": 0.0, "accuracy": 0.0},
        {"from": 0.5, "to": 0.6, "count": 1, "confidence": pytest.approx(55), "accuracy": 100.0},
        {"from": 0.9, "to": 1.0, "count": 2, "confidence": pytest.approx(97.5), "accuracy": 50.0},
    ]
    assert actual["ece"] == pytest.approx((0 + 45 + 2 * 47.5) / 4)


def test_of_nothing() -> None:
    assert calibration(np.empty(0), np.empty(0, dtype=np.bool_)) == {"ece": 0.0, "bins": []}
