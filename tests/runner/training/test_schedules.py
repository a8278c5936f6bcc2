"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from runner.training.schedules import Cosine, WarmupLinear


@pytest.mark.parametrize(("share", "updates"), [(0.1, 4), (0.0, 0), (0.26, 10)])
def test_a_warm_up_is_a_number_of_updates_or_a_share_of_all(share: float, updates: int) -> None:
    for by_share, by_number in (
        (WarmupLinear(total_updates=40, warmup=share), WarmupLinear(total_updates=40, warmup=updates)),
        (Cosine(total_updates=40, warmup=share, floor=0.1), Cosine(total_updates=40, warmup=updates, floor=0.1)),
    ):
        factors = [by_share.factor(update) for update in range(41)]
        assert factors == [by_number.factor(update) for update in range(41)]
        assert factors[updates] == pytest.approx(1.0)
