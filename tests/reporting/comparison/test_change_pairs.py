"""`--fail-if` where a seed failed, diverged or is missing on one side: what cannot be judged must not pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from reporting.comparison import baseline, changes
from reporting.comparison.changes import BaselineComparison
from reporting.comparison.summary import CompareOptions, groups
from reporting.runs import find
from runner.common.errors import HydromelError


def write(write_run: Any, folder: Path, f1: dict[int, float], **change: Any) -> baseline.Sides:
    for seed, value in f1.items():
        write_run(folder / f"packed{seed}", "packed", seed, f1=value, change=change)
    result = [item.run for item in find.scan(folder) if item.run]
    return baseline.sides_of_groups(groups(result, CompareOptions(None, 0.95, 1.0)), result)


def since(now: baseline.Sides, then: baseline.Sides, *texts: str) -> BaselineComparison:
    return changes.compare("then", now, then, [changes.parse(text) for text in texts], 0.95)


def test_a_seed_that_diverged_never_passes(tmp_path: Path, write_run: Any) -> None:
    then = write(write_run, tmp_path / "then", {1: 40.0, 2: 41.0, 3: 42.0})
    now = write(write_run, tmp_path / "now", {1: 40.0, 2: 41.0, 3: math.nan})
    line = "test/f1 of packed (tag · wnut17 · word · rnn), seed 3, is missing in these runs or the baseline"
    with pytest.raises(HydromelError, match="--fail-if cannot be judged") as error:
        since(now, then, "test/f1 < -1")
    assert str(error.value).endswith(line)
    assert since(now, then).unmatched == [line]
    assert not since(now, then, "speed < -5%").judged[0].failed  # its speed is recorded


@pytest.mark.parametrize("text", ["test/f1 < -1", "speed < -5%"])
def test_seeds_of_one_side_alone_never_pass(tmp_path: Path, write_run: Any, text: str) -> None:
    then = write(write_run, tmp_path / "then", {1: 40.0, 2: 41.0})
    now = write(write_run, tmp_path / "now", {2: 41.0, 4: 10.0})
    for one, other in ((now, then), (then, now)):
        with pytest.raises(HydromelError, match="seeds 1, 4, is missing"):
            since(one, other, text)


def test_more_turns_on_one_side_are_no_obstacle(tmp_path: Path, write_run: Any) -> None:
    then = write(write_run, tmp_path / "then", {1: 40.0, 2: 41.0})
    for seed in (1, 2):
        write_run(tmp_path / "now" / f"again{seed}", "packed", seed, f1=40.0, change={"turn": 2})
    now = write(write_run, tmp_path / "now", {1: 40.0, 2: 41.0})
    assert not since(now, then, "test/f1 < -1", "speed < -5%").unmatched


def test_no_bound_is_infinite() -> None:
    with pytest.raises(HydromelError, match="no change is beyond -1e999"):
        changes.parse("test/f1 < -1e999")
