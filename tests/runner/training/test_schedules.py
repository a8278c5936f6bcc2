"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from runner.training.schedules import Constant, Cosine, Plateau, Step, WarmupLinear
from tests.helpers.composed import config


@pytest.mark.parametrize(("share", "updates"), [(0.1, 4), (0.0, 0), (0.26, 10)])
def test_a_warm_up_is_a_number_of_updates_or_a_share_of_all(share: float, updates: int) -> None:
    for by_share, by_number in (
        (WarmupLinear(total_updates=40, warmup=share), WarmupLinear(total_updates=40, warmup=updates)),
        (Cosine(total_updates=40, warmup=share, floor=0.1), Cosine(total_updates=40, warmup=updates, floor=0.1)),
    ):
        factors = [by_share.factor(update) for update in range(41)]
        assert factors == [by_number.factor(update) for update in range(41)]
        assert factors[updates] == pytest.approx(1.0)


def test_a_warm_up_comes_before_any_schedule() -> None:
    constant = Constant(total_updates=8, warmup=0.5)
    step = Step(total_updates=8, updates_per_epoch=3, warmup=2, every_epochs=1, gamma=0.5)
    plateau = Plateau(total_updates=8, warmup=1, gamma=0.5, patience=0, floor=0.1)
    assert [constant.factor(update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [step.factor(update) for update in range(7)] == [0.5, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert [Constant(total_updates=8, warmup=0).factor(0), plateau.factor(0)] == [1.0, 1.0]


def test_every_schedule_fits_the_experiments_with_a_warm_up() -> None:
    for schedule in ("constant", "cosine", "linear", "plateau", "step"):
        assert config("experiment=finetune_classify", "embedding.path=x", f"schedule={schedule}")["schedule"]["warmup"]
