"""The warning about runs that the simplest models match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reporting.comparison.summary import CompareOptions, groups
from reporting.runs import find


def caveats(folder: Path) -> list[str]:
    (group,) = groups([item.run for item in find.scan(folder) if item.run], CompareOptions(None, 0.95, 1.0))
    return group.caveats


def test_a_comparison_says_which_runs_do_not_beat_the_simplest_models(tmp_path: Path, write_run: Any) -> None:
    simple = {"majority": {"f1": 41.0}, "baselines": {"most_frequent_tag": {"f1": 50.0, "seconds": 0.1}}}
    write_run(tmp_path / "a", "padmask", 1, f1=40.0, change=simple)
    write_run(tmp_path / "b", "packed", 1, f1=42.0, change=simple)
    assert (
        "Not better on test f1 than the simplest models: majority (padmask seed 1); most_frequent_tag (all runs)."
        in caveats(tmp_path)
    )


def test_runs_that_beat_them_get_no_warning(tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "a", "padmask", 1, f1=60.0, change={"majority": {"f1": 0.0}, "baselines": {}})
    assert not any("simplest" in caveat for caveat in caveats(tmp_path))
