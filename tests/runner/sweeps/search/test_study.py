"""The study: the same draws whether a search was interrupted or not, and pruning by fabricated curves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from runner.common.errors import HydromelError
from runner.config.schema import SearchSettings
from runner.sweeps.search.space import Space
from runner.sweeps.search.study import ask, counted, open_study, storage_errors
from tests.helpers.composed import run_config

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = Space.of({"x": {"low": 0.0, "high": 1.0}, "kind": {"choices": ["a", "b", [1]]}}, {})
ASKED = {"config": "c", "space": "s"}


def options(*overrides: str) -> SearchSettings:
    settings = run_config("search=optuna", *overrides).search
    assert settings is not None
    return settings


def opened(file: Path, of: SearchSettings) -> optuna.Study:
    return open_study(f"sqlite:///{file}", "s", of, True, 8, ASKED)


def quality(values: dict[str, Any]) -> float:
    return float(-abs(values["x"] - 0.3) - (values["kind"] != "b"))


def drawn(file: Path, of: SearchSettings, count: int, cut: set[int] = frozenset()) -> list[dict[str, Any]]:  # type: ignore[assignment]
    """Parameters of the trials that count; after those at the places in `cut` were asked for, the process died."""
    died: set[int] = set()
    study = opened(file, of)
    while (place := len(counted(study))) < count:
        trial = ask(study, of, SPACE, None)
        if place in cut - died:
            died.add(place)
            study = opened(file, of)
        else:
            study.tell(trial, quality(SPACE.values(trial.params)))
    return [trial.params for trial in counted(study)]


@pytest.fixture(autouse=True)
def study_files(tmp_path: Path, empty_study_file: Path) -> None:
    """Databases without a study."""
    for name in "abc":
        shutil.copy(empty_study_file, tmp_path / f"{name}.db")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interrupted_search_draws_what_one_without_interruption_draws(tmp_path: Path, sampler: str) -> None:
    of = options(f"search.sampler={sampler}", "search.startup_trials=3")
    whole = drawn(tmp_path / "a.db", of, 6)
    assert drawn(tmp_path / "b.db", of, 6, cut={0, 4}) == whole
    assert drawn(tmp_path / "c.db", options(f"search.sampler={sampler}", "search.seed=2"), 1) != whole[:1]
    assert len({trial["x"] for trial in whole}) == 6


def test_what_was_cut_off_is_marked_as_failed_and_does_not_count(tmp_path: Path) -> None:
    of = options()
    drawn(tmp_path / "a.db", of, 3, cut={1})
    study = opened(tmp_path / "a.db", of)
    assert [trial.state for trial in study.trials] == [
        *(TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE)
    ]
    assert study.trials[1].params == study.trials[2].params


def test_the_first_trial_has_the_defaults_even_if_it_was_cut_off(tmp_path: Path) -> None:
    of, defaults = options(), {"x": 0.25, "kind": "a"}
    for _ in range(2):
        trial = ask(opened(tmp_path / "a.db", of), of, SPACE, defaults)
        assert trial.params == defaults
    study = opened(tmp_path / "a.db", of)
    study.tell(ask(study, of, SPACE, defaults), 1.0)
    assert ask(study, of, SPACE, defaults).params != defaults


def prunes(of: SearchSettings, curves: list[list[float]], higher: bool) -> list[int | None]:
    """At which evaluation each of these curves is ended."""
    study, ends = open_study("sqlite:///:memory:", "s", of, higher, 8, ASKED), []
    for curve in curves:
        trial = ask(study, of, SPACE, None)
        end = None
        for step, value in enumerate(curve, start=1):
            trial.report(value, step)
            if trial.should_prune():
                end = step
                break
        study.tell(trial, state=TrialState.PRUNED) if end else study.tell(trial, curve[-1])
        ends.append(end)
    return ends


def worse_than_median(curves: list[list[float]], startup: int, warmup: int, sign: int) -> list[int | None]:
    """The rule, slowly: ended where its best so far is worse than the middle of what finished ones had there."""
    ends: list[int | None] = []
    for place, one in enumerate(curves):
        finished = [curves[i] for i in range(place) if ends[i] is None]
        end = None
        for step in range(warmup + 1, len(one) + 1):
            there = sorted(sign * other[step - 1] for other in finished)
            middle = (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2 if there else 0.0
            if len(finished) >= startup and max(sign * value for value in one[:step]) < middle:
                end = step
                break
        ends.append(end)
    return ends


@pytest.mark.parametrize("higher", [True, False])
def test_the_median_pruner_ends_what_is_worse_than_half(higher: bool) -> None:
    sign = 1 if higher else -1
    rises = [[50, 60, 70], [52, 63, 74], [48, 58, 68], [47, 70, 71], [40, 50, 60], [55, 56, 57], [60, 70, 80]]
    curves = [[float(sign * value) for value in rise] for rise in rises]
    of = options("search.startup_trials=3", "search.warmup_evaluations=1")
    ends = prunes(of, curves, higher)
    assert ends == worse_than_median(curves, 3, 1, sign)
    assert ends == [None, None, None, None, 2, 2, None]
    assert prunes(options("search.pruner=none"), curves, higher) == [None] * 7


def test_hyperband_ends_poor_trials() -> None:
    of = options("search.pruner=hyperband", "search.sampler=random")
    poor = [[float(-place)] * 8 for place in range(8)]
    ends = prunes(of, poor, True)
    assert any(ends)
    assert not all(ends)


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    of = options()
    opened(tmp_path / "a.db", of)
    with pytest.raises(HydromelError, match=r"sweep\.id=s: that search was started with a different space"):
        open_study(f"sqlite:///{tmp_path / 'a.db'}", "s", of, True, 8, ASKED | {"space": "t"})


@pytest.mark.parametrize("damage", [b"no database " * 300, None])
def test_a_damaged_storage_is_told_in_one_line(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "study.db"
    if damage is None:
        file.mkdir()
    else:
        file.write_bytes(damage)
    with pytest.raises(HydromelError) as error, storage_errors(str(file)):
        opened(file, options())
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
