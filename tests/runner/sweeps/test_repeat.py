"""The lines at the end of `repeat=N`, from the results of its runs."""

from __future__ import annotations

from pathlib import Path

from runner.common.bounded import read_bytes
from runner.common.records import parse_result
from runner.common.run_schema import RESULT
from runner.experiment.run import summary
from runner.sweeps.repeat import spread
from tests.helpers.composed import run_as_command, tag_files


def test_runs_of_too_few_updates_have_a_quality_and_no_speed(tmp_path: Path) -> None:
    short = ["encoder=none", "train.max_updates=2", "train.warmup_updates=10"]
    folders = [run_as_command(tmp_path / str(seed), *tag_files(tmp_path), *short, f"seed={seed}") for seed in (1, 2)]
    results = [parse_result(read_bytes(folder / RESULT), "result.json") for folder in folders]
    quality, speed = spread(results)
    assert quality.startswith("test f1: ")
    assert speed == "real tokens/s: —"
    assert "too few updates to time" in summary(results[0], folders[0])
