"""Damaged records of runs: reported or shown as a dash, never a crash."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from reporting.comparison.summary import CompareOptions
from reporting.runs import find
from reporting.statistics.intervals import ratio_interval
from reporting.views import report

WHOLE = {
    "speed.by_length": [{"longest": 16, "updates": 2, "real_tokens": 300, "places": 400, "seconds": 0.5}],
    "memory.peak_batch": {"rows": 30, "width": 2, "tokens": 3},
    "memory.peak_bytes": 1000,
    "memory.micro_batch": {"asked": None, "used": 3, "halved_at": [2]},
}
DAMAGE: list[tuple[str, Any]] = [
    ("speed.by_length", ["x"]),
    ("speed.by_length", [None, 0, [], {"longest": "a"}]),
    ("speed.by_length", [{"longest": math.nan, "real_tokens": 1, "seconds": 1.0}]),
    ("speed.by_length", [{"longest": 16, "real_tokens": {}, "seconds": 10**400}]),
    ("memory.peak_batch", {"rows": "many"}),
    ("memory.peak_batch", 7),
    ("memory.micro_batch", {"halved_at": [{}, "x"]}),
    ("speed.real_tokens_per_s", 10**400),
    ("metrics.test.f1", 10**400),
    ("metrics.test", {"f1": "good"}),
]


@pytest.mark.parametrize(("path", "value"), DAMAGE)
def test_damaged_figures_are_left_out(tmp_path: Path, write_run: Any, path: str, value: Any) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"padmask{seed}", "padmask", seed, change=WHOLE)
        write_run(tmp_path / f"packed{seed}", "packed", seed, change=WHOLE | ({path: value} if seed == 1 else {}))
    result = report.build(["all"], find.scan(tmp_path), CompareOptions(None, 0.95, 1.0))
    assert sorted(strategy.name for strategy in result.groups[0].strategies) == ["packed", "padmask"]
    (packed,) = (strategy for strategy in result.groups[0].strategies if strategy.name == "packed")
    assert [item.real_tokens_per_s for item in packed.by_length] == [600.0]
    assert packed.peak_batch == WHOLE["memory.peak_batch"]
    json.loads(report.to_json(result))
    assert "packed" in report.to_markdown(result, [[]])


def test_an_interval_that_no_float_holds_has_no_end() -> None:
    values = {1: 1.0, 2: 1e200}
    result = ratio_interval(values, {1: 1.0, 2: 1.0}, 0.95)
    assert result is not None
    assert (result.low, result.high) == (0, math.inf)
