"""Where windows vary, an update's learning rate is its window's share of the usual one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runner.training.optimizers import Sgd
from tests.helpers.composed import run


def test_the_rate_of_an_update_goes_with_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("the cat sat on the mat .\n" * 60, encoding="utf-8")  # 480 tokens
    rates: list[float] = []
    step = Sgd.step

    def watched(self: torch.optim.SGD, *rest: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest)

    monkeypatch.setattr(Sgd, "step", watched)
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "dataset.train=train.txt", "dataset.valid=valid.txt"]
    options += [
        "dataset.test=test.txt",
        "encoder=lstm",
        "encoder.hidden=4",
        "task.unit=stream",
        "batching=stream",
        "batching.batch_size=4",
    ]
    options += ["batching.window=10", "batching.half_rate=0.3", "batching.spread=2.0", "optimizer=sgd"]
    result = run(tmp_path / "run", *options, "optimizer.lr=0.5", "train.epochs=2", "baselines=false")
    windows = torch.tensor(rates) / 0.5 * 10
    torch.testing.assert_close(windows, windows.round())
    assert windows.sum() == pytest.approx(2 * 480 / 4), "every token of a stream once an epoch"
    assert len({round(float(window)) for window in windows}) > 3
    assert result["tokens"]["real"] == 2 * 480
    assert result["updates"]["count"] == len(windows)
