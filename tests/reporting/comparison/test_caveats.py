"""The warning about runs that the simplest models match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reporting import compare
from reporting.comparison.summary import CompareOptions, RunGroup, groups
from reporting.runs import find


def group_of(folder: Path) -> RunGroup:
    (group,) = groups([item.run for item in find.scan(folder) if item.run], CompareOptions(None, 0.95, 1.0))
    return group


def test_a_comparison_says_which_runs_do_not_beat_the_simplest_models(
    tmp_path: Path, write_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    simple = {"majority": {"f1": 41.0}, "baselines": {"most_frequent_tag": {"f1": 50.0, "seconds": 0.1}}}
    write_run(tmp_path / "a", "padmask", 1, f1=40.0, change=simple)
    write_run(tmp_path / "b", "packed", 1, f1=42.0, change=simple)
    warning = "Not better on test f1 than the simplest models: majority (padmask seed 1); most_frequent_tag (all runs)."
    assert group_of(tmp_path).unbeaten == warning
    for view, heading in (("index.html", "<table>"), ("report.md", "## ")):
        assert compare.main([str(tmp_path), "--out", str(tmp_path / "out"), "--no-mlflow"]) == 0
        page = (tmp_path / "out" / view).read_text(encoding="utf-8").replace("\\_", "_")
        assert page.count(warning) == 1
        assert page.index(warning) < page.index(heading), "on top"
    assert capsys.readouterr().out.startswith("Warning: Not better on test f1")


def test_runs_that_beat_them_get_no_warning(tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "a", "padmask", 1, f1=60.0, change={"majority": {"f1": 0.0}, "baselines": {}})
    assert group_of(tmp_path).unbeaten == ""


@pytest.mark.parametrize(("seeds", "expected"), [(1, "One seed only: "), (2, "Two seeds only: "), (3, "")])
def test_few_seeds_say_that_three_are_needed(tmp_path: Path, write_run: Any, seeds: int, expected: str) -> None:
    for strategy in ("padmask", "packed"):
        for seed in range(seeds):
            write_run(tmp_path / f"{strategy}{seed}", strategy, seed + 1)
    said = [caveat for caveat in group_of(tmp_path).caveats if "three seeds or more" in " ".join(caveat.split())]
    assert [caveat.startswith(expected) for caveat in said] == ([True] if expected else [])


def test_ranks_are_compared_with_one_rank(tmp_path: Path, write_run: Any) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"one{seed}", "packed", seed, change={"speed.real_tokens_per_s": 1000.0})
        on_two = {"speed.real_tokens_per_s": 1600.0, "provenance.ranks": 2, "provenance.load_average": 4.2}
        write_run(tmp_path / f"two{seed}", "packed", seed, change=on_two)
        write_run(
            tmp_path / f"three{seed}", "bucketed", seed, change={"provenance.ranks": 3, "provenance.shard": "full"}
        )
    group = group_of(tmp_path)
    assert [item.name for item in group.strategies] == ["bucketed ranks=3 shard=full", "packed", "packed ranks=2"]
    (said,) = [line for line in group.sentences if "one rank" in line]
    assert said == (
        "packed ranks=2 is 1.60 times as fast as one rank of as many threads (1.60 to 1.60): 80 % of what 2 ranks "
        "could reach."
    )
    assert any("packed and packed ranks=2 made the same" in line for line in group.sentences)
    assert not any("busy" in caveat for caveat in group.caveats), "two ranks of two threads make a load of 4"


@pytest.mark.parametrize(
    ("speeds", "said"),
    [
        (
            [1600.0],
            "is 1.60 times as fast as one rank of as many threads (one pair of runs, so it may be chance): 80 %",
        ),
        ([2000.0, 900.0], "(0.01 to 214.20), which does not show that 2 ranks are faster or slower."),
    ],
)
def test_a_gain_by_ranks_that_may_be_chance(tmp_path: Path, write_run: Any, speeds: list[float], said: str) -> None:
    for seed, speed in enumerate(speeds, start=1):
        write_run(tmp_path / f"one{seed}", "packed", seed, change={"speed.real_tokens_per_s": 1000.0})
        on_two = {"speed.real_tokens_per_s": speed, "provenance.ranks": 2}
        write_run(tmp_path / f"two{seed}", "packed", seed, change=on_two)
    (sentence,) = [line for line in group_of(tmp_path).sentences if "one rank" in line]
    assert said in sentence
