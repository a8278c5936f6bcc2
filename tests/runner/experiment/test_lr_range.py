"""The learning-rate range test: its mean, its limits on a toy whose limit is known, and on a real model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runner.cli import lr_range
from runner.components.run_components import Components
from runner.experiment.lr_range import DIVERGED, Range, measure, stepper
from runner.experiment.preparation import prepare
from runner.tracking.run_folder import RunFolder
from tests.helpers.composed import label_files, run_config

QUIET = ("encoder=bow", "embedding.size=4", "cache_dir=null", "tracker=none", "batching.batch_size=8")


def quadratic(curvature: float) -> Callable[[float], float]:
    """Gradient descent on curvature / 2 x^2, which shrinks x if and only if the rate is below 2 / curvature."""
    x = [1.0]

    def step(rate: float) -> float:
        loss = curvature / 2 * x[0] ** 2
        x[0] -= rate * curvature * x[0]
        return loss

    return step


@pytest.mark.parametrize("curvature", [0.5, 4.0, 100.0])
def test_the_loss_of_a_quadratic_is_lowest_at_its_limit(curvature: float) -> None:
    limit = 2 / curvature
    rates = np.geomspace(limit / 1e3, limit * 1e3, 301)
    actual = measure(quadratic(curvature), rates, smoothing=0.0)
    factor = rates[1] / rates[0]
    assert actual.lowest == pytest.approx(limit, rel=factor**2 - 1)
    assert actual.suggestion == pytest.approx(actual.lowest / 10)
    assert actual.diverged is not None
    assert limit < actual.diverged < limit * factor**6
    assert not actual.still_falling


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_the_mean_is_the_weighted_one_of_all_losses_so_far(smoothing: float) -> None:
    losses = np.random.default_rng(1).uniform(1, 2, 30)
    given = iter(losses)
    actual = measure(lambda rate: next(given), np.geomspace(0.1, 1.0, 30), smoothing)
    for place in range(30):
        weights = [smoothing ** (place - j) for j in range(place + 1)]
        expected = sum(w * x for w, x in zip(weights, losses, strict=False)) / sum(weights)
        assert actual.smoothed[place] == pytest.approx(expected)
    assert list(actual.losses) == list(losses)


def ranged(losses: list[float]) -> Range:
    given = iter(losses)
    return measure(lambda rate: next(given), np.geomspace(1e-3, 1e-3 * 2 ** (len(losses) - 1), len(losses)), 0.0)


def test_it_ends_where_the_loss_diverges() -> None:
    actual = ranged([2.0, 1.0, 0.5, DIVERGED * 0.5, DIVERGED * 0.5 + 0.01, 9.0])
    assert len(actual.rates) == 5
    assert actual.diverged == pytest.approx(0.016)
    actual = ranged([2.0, 1.0, math.nan, 1.0])
    assert (len(actual.rates), actual.diverged) == (2, pytest.approx(0.004))


def test_what_is_read_off_a_curve() -> None:
    actual = ranged([5.0, 4.9, 4.0, 3.8, 3.7, 4.5])
    assert actual.lowest == pytest.approx(0.016)
    assert actual.steepest == pytest.approx(0.004)  # by central differences: 4.9 - 3.8 is more than 5.0 - 4.0
    assert actual.diverged is None
    assert not actual.still_falling
    assert ranged([5.0, 4.0, 3.0]).still_falling
    rises = ranged([3.0, 4.0, 5.0])
    assert (rises.lowest, rises.steepest, rises.suggestion) == (None, None, None)


def test_every_update_has_its_rate_and_parts_keep_their_ratio(tmp_path: Path) -> None:
    here = run_config(
        *label_files(tmp_path, 30),
        *QUIET,
        "batching=padmask",
        "optimizer=sgd",
        "schedule=cosine",
        "optimizer.momentum=0.0",
    )
    with RunFolder.open(tmp_path / "run") as run:
        training = prepare(here, Components.of(here), run, 0.0).training
        before = [group["learning_rate_factor"] for group in training.optimizer.param_groups]
        training.optimizer.add_param_group({"params": [], "learning_rate_factor": 0.25, "initial_lr": 1.0})
        step = stepper(training)
        for rate in (0.5, 0.125, 0.001):
            loss = step(rate)
            assert math.isfinite(loss)
            assert [group["lr"] for group in training.optimizer.param_groups] == [
                *(rate * item for item in before),
                rate * 0.25,
            ]
        assert training.progress.updates == 3
        losses = [step(0.5) for _ in range(20)]  # 4 updates an epoch: epochs follow one another
        assert training.progress.epoch == 5
        assert losses[-1] < losses[0]
        assert math.isnan(step(1e30) + step(1e30) + step(1e30))


def test_the_command_leaves_a_plot_and_figures_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = label_files(tmp_path, 30)
    before = {path.name for path in tmp_path.iterdir()}
    arguments = [*files, *QUIET, "--updates", "40", "--high", "10", "--out", "out", "--json", "out/lr.json"]
    assert lr_range.main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} - before == {"out"}
    assert (tmp_path / "out" / "lr_range.png").stat().st_size > 5_000
    figures = json.loads((tmp_path / "out" / "lr.json").read_text(encoding="utf-8"))
    rates = figures["rates"]
    assert rates == pytest.approx(np.geomspace(1e-5, 10, 40)[: len(rates)].tolist())
    assert len(figures["losses"]) == len(figures["smoothed"]) == len(rates)
    assert figures["suggestion"] == pytest.approx(figures["lowest"] / 10)
    assert f"optimizer.lr={figures['suggestion']:.2g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--low", "1", "--high", "0.1"], "--low 1 must be below --high 0.1"),
        (["--updates", "3"], "'3' is not a whole number from 10"),
        (["--smoothing", "1"], "'1' is not a number from 0 to below 1"),
        (["--low", "-1"], "--low"),
        (["encoder=rn"], "encoder=rn: unknown"),
        (["seed=1,2"], "seed=1,2"),
        (["resume=runs/x"], "resume=runs/x: the test trains a new model; leave it out, or use init_from=RUN"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert lr_range.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
