"""A run that names no number of threads chooses one or all, once; the trial changes nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runner.advisor.plan_report import plan_strategies
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.run_schema import CHECKPOINTS
from runner.experiment.lr_range import measure_range
from runner.training import threads
from tests.helpers.composed import QUIET, run, run_config, tag_files

SMALL = ("encoder=rnn", "encoder.hidden=4", "encoder.dropout=0.3", "embedding.size=4", "baselines=false")
OPTIONS = (*SMALL, "train.epochs=2", "batching.batch_size=4", "predictions=false")
tried: list[int] = []  # the number of threads of each turn of the trials of a test


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, on which all runs are long enough for a trial; torch itself keeps to the threads that it has."""
    number = [2]
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: number.__setitem__(0, threads))
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(threads, "_AT_START", 2)
    monkeypatch.setattr(threads, "_SHORT_S", 0.0)
    tried.clear()


def clock(one: float, two: float) -> Callable[..., float]:
    """Updates take these seconds with one thread and with two."""

    def seconds_of(backward: Callable[[IntArray], object], updates: Sequence[IntArray], number: int) -> float:
        tried.append(number)
        for rows in updates:
            backward(rows)
        return len(updates) * {1: one, 2: two}[number]

    return seconds_of


@pytest.mark.parametrize(("two", "chosen"), [(0.02, 2), (0.039, 1)])
def test_the_faster_number_is_chosen(
    two: float, chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, two))
    result = run(tmp_path / "run", *tag_files(tmp_path), *OPTIONS)
    assert result["provenance"]["threads"] == chosen
    assert f"threads: {chosen}, by a trial: 2 threads make {0.04 / two:.2f} times the speed of one" in caplog.text
    assert sum(number == 2 for number in tried) <= 10, "a trial takes tenths of a second"


def test_a_trial_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tag_files(tmp_path)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 0.04))
    run(tmp_path / "tried", *data, *OPTIONS)
    assert {1, 2} <= {*tried}
    tried.clear()
    run(tmp_path / "told", *data, *OPTIONS, "threads=1")
    assert not tried, "threads=N needs no trial"
    with_trial, without = (load_file(tmp_path / name / CHECKPOINTS / "last.safetensors") for name in ("tried", "told"))
    assert with_trial.keys() == without.keys()
    for name, tensor in without.items():
        assert torch.equal(tensor, with_trial[name]), name


def test_a_resumed_run_keeps_its_number_unless_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tag_files(tmp_path)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 0.02))
    run(tmp_path / "run", *data, *OPTIONS)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 4.0))
    tried.clear()
    longer = run(tmp_path / "run", *data, *OPTIONS, "train.epochs=3")
    assert longer["provenance"]["threads"] == 2
    assert not tried
    told = run(tmp_path / "run", *data, *OPTIONS, "train.epochs=4", "threads=1")
    assert told["provenance"]["threads"] == 1


def test_runs_of_a_sweep_have_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, sweep = tag_files(tmp_path), tmp_path / "sweep"
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 0.02))
    first = run(sweep / "padmask", *data, *OPTIONS, "sweep.id=sweep", "batching=padmask")
    assert json.loads((sweep / threads.FILE).read_text()).popitem()[1] == 2
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 4.0))
    second = run(sweep / "packed", *data, *OPTIONS, "sweep.id=sweep", "batching=packed")
    assert first["provenance"]["threads"] == second["provenance"]["threads"] == 2
    (sweep / threads.FILE).write_text('{"here": 0}', encoding="utf-8")
    with pytest.raises(HydromelError, match=r"threads\.json.*greater than 0"):
        run(sweep / "size1", *data, *OPTIONS, "sweep.id=sweep", "batching=size1")


def test_a_short_run_keeps_to_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_SHORT_S", 1000.0)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 0.001))
    assert run(tmp_path / "run", *tag_files(tmp_path), *OPTIONS)["provenance"]["threads"] == 1
    assert tried == [1]


@pytest.mark.parametrize(("one", "two"), [(0.001, 0.05), (0.03, 0.03), (5.0, 2.0), (0.0001, 0.0001)])
def test_a_trial_ends_in_time(one: float, two: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "seconds_of", clock(one, two))
    updates = [torch.zeros(1).long().numpy()] * 500
    turn = max(1, round(threads._TURN_S / one))
    seconds = threads.trial(lambda rows: None, updates, 2, turn)
    assert tried == [1, 2] * (len(tried) // 2)
    assert seconds[1] / seconds[0] == pytest.approx(two / one)
    assert sum(seconds) <= threads._TRIAL_S + turn * (one + two)


def test_the_learning_rate_test_and_the_plan_choose_by_the_same_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(threads, "seconds_of", clock(0.04, 0.02))
    options = (*tag_files(tmp_path), *OPTIONS, *QUIET)
    measure_range(run_config(*options), np.geomspace(1e-4, 1e-3, 10), 0.9)
    assert torch.get_num_threads() == 2
    assert "threads: 2, by a trial: 2 threads make 2.00 times" in caplog.text
    strategy = run_config(*options, "batching=packed")
    for two, number in ((0.02, 2), (4.0, 1)):
        caplog.clear()
        monkeypatch.setattr(threads, "seconds_of", clock(0.04, two))
        plan_strategies([strategy], {}, 1, 0.01)
        assert torch.get_num_threads() == number
        assert f"speed is predicted with threads: {number}, by a trial" in caplog.text
    caplog.clear()
    plan_strategies([run_config(*options, "batching=packed", "threads=1")], {}, 1, 0.01)
    assert "threads" not in caplog.text
