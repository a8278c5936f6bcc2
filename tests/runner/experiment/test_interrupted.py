"""A run that is interrupted in any phase and resumed is, bit for bit, the run that was never interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reporting.plots.run import RunPlots
from runner.common import run_schema
from runner.experiment import result as result_module
from runner.experiment import run as run_module
from runner.tracking.run_folder import RunFolder
from runner.training import checkpoint, loop
from tests.helpers.composed import run
from tests.helpers.interrupted import assert_equal, interrupted

OPTIONS = [
    *("encoder=rnn", "encoder.hidden=4", "encoder.dropout=0.3", "embedding.size=4", "schedule=plateau", "device=cpu"),
    *("batching.batch_size=8", "train.epochs=2", "train.checkpoint_every=3", "sweep.id=null"),
]


PHASES: dict[str, tuple[Any, str, int]] = {  # where, the function that does not come to its end, and which call of it
    "within an epoch": (loop, "train_segment", 4),
    "evaluation on valid": (loop, "evaluate_valid", 2),
    "before the last checkpoint": (loop, "record_evaluation", 2),
    "before the best checkpoint": (loop, "_keep_best", 2),  # the first call is made before training
    "before the test": (run_module, "finish", 1),
    "test evaluation": (result_module, "run_split", 1),
    "predictions": (result_module, "inspect", 1),
    "baselines": (result_module, "_baselines", 1),
    "arithmetic": (result_module, "arithmetic", 1),
    "kernels": (result_module, "kernel", 1),
    "before the result": (RunFolder, "write_result", 1),
}


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase(phase: str, data: list[str], whole: Path, tmp_path: Path) -> None:
    place, name, count = PHASES[phase]
    interrupted(place, name, tmp_path / "run", *data, *OPTIONS, call=count)
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run")


def test_plots_are_drawn_later(data: list[str], whole: Path, tmp_path: Path) -> None:
    options = [*data, *OPTIONS, "run_plots={_target_: reporting.plots.run.RunPlots}"]
    interrupted(RunPlots, "draw", tmp_path / "run", *options)
    before = (tmp_path / "run" / run_schema.RESULT).read_bytes()
    run(tmp_path / "run", *options)
    assert (tmp_path / "run" / run_schema.RESULT).read_bytes() == before, "nothing else is done again"
    assert (tmp_path / "run" / run_schema.PLOTS / "curves.png").exists()
    assert_equal(whole, tmp_path / "run")


def test_a_run_that_is_interrupted_twice_at_its_end(data: list[str], whole: Path, tmp_path: Path) -> None:
    for name in ("finish", "finish", "prepare"):
        interrupted(run_module, name, tmp_path / "run", *data, *OPTIONS)
    run(tmp_path / "run", *data, *OPTIONS)
    assert_equal(whole, tmp_path / "run")


@pytest.mark.parametrize("limit", ["train.epochs=1", "train.epochs=2", "train.max_updates=18", "train.max_updates=3"])
def test_no_work_is_left_under_a_lower_limit(limit: str, data: list[str], whole: Path, tmp_path: Path) -> None:
    interrupted(run_module, "finish", tmp_path / "run", *data, *OPTIONS)
    result = run(tmp_path / "run", *data, *OPTIONS, limit)
    assert result["updates"] == json.loads((whole / run_schema.RESULT).read_text())["updates"], (
        "what was done stays done"
    )
    assert result["updates"]["epochs"] == 2


def test_a_run_that_ends_within_an_epoch_is_evaluated_there(data: list[str], tmp_path: Path) -> None:
    interrupted(loop, "train_segment", tmp_path / "cut", *data, *OPTIONS, call=2)
    run(tmp_path / "cut", *data, *OPTIONS, "train.max_updates=3")  # the first checkpoint has three updates
    run(tmp_path / "whole", *data, *OPTIONS, "train.max_updates=3")
    assert_equal(tmp_path / "whole", tmp_path / "cut", same_plan=False)


def test_the_best_checkpoint_is_never_ahead_of_the_last(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, save = [], checkpoint.save_checkpoint

    def noted(path: Path, *rest: Any) -> None:
        written.append(path.stem)
        save(path, *rest)

    monkeypatch.setattr(checkpoint, "save_checkpoint", noted)
    run(tmp_path / "run", *data, *OPTIONS, "train.max_updates=3")
    assert written == ["last", "best"]
