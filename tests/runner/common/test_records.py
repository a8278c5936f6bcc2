"""Which of the simplest models a run does not beat, and where that is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from runner.common.records import shown, unbeaten_baselines
from runner.experiment.run import summary


def result(value: float | None, metric: str = "accuracy", higher: bool = True) -> dict[str, Any]:
    return {
        "name": "padmask-s1",
        "quality": {"metric": metric, "higher_is_better": higher},
        "metrics": {"valid": {metric: value}, "test": {metric: value}},
        "majority": {metric: 15.7},
        "baselines": {"svm": {metric: 25.62, "seconds": 0.1}, "unmeasured": {metric: None}},
        "speed": {"real_tokens_per_s": 1000.0},
    }


@pytest.mark.parametrize(
    ("value", "unbeaten"),
    [(9.9, {"majority", "svm"}), (20.0, {"svm"}), (25.62, {"svm"}), (25.63, set()), (math.nan, {"majority", "svm"})],
)
def test_a_run_beats_only_what_is_worse(value: float, unbeaten: set[str]) -> None:
    assert set(unbeaten_baselines(result(value))) == unbeaten


def test_of_perplexity_less_is_better() -> None:
    assert unbeaten_baselines(result(20.0, "perplexity", higher=False)) == {"majority": 15.7}
    assert unbeaten_baselines(result(15.0, "perplexity", higher=False)) == {}


@pytest.mark.parametrize("change", [{"metrics": {"valid": {}}}, {"metrics": {"test": {}}}, {"metrics": {}}])
def test_without_a_figure_on_test_nothing_is_said(change: dict[str, Any]) -> None:
    assert unbeaten_baselines(result(9.9) | change) == {}


def test_missing_baselines_are_left_out() -> None:
    assert unbeaten_baselines(result(9.9) | {"majority": None, "baselines": {}}) == {}


def test_small_figures_that_are_no_percentages_keep_more_digits() -> None:
    assert [shown(value, "") for value in (0.61234, -0.5, 2.0, 220.127)] == ["0.6123", "-0.5000", "2.00", "220.13"]
    assert shown(0.61234, "%") == "0.61"


def test_a_run_that_beats_nothing_says_so_at_its_end() -> None:
    line, warning = summary(result(9.9), Path("runs/a")).splitlines()
    assert line == "padmask-s1: test accuracy 9.90, 1,000 real tokens/s -> runs/a"
    assert warning == (
        "warning: test accuracy 9.90 is not better than that of the simplest models: majority 15.70, svm 25.62"
    )
    assert len(summary(result(30.0), Path("runs/a")).splitlines()) == 1
