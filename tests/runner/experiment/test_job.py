"""How a run's process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.experiment import run
from runner.experiment.job import run_job
from tests.helpers.composed import run_config


def test_a_missing_kernel_is_one_line_that_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "could not create a primitive descriptor for the LSTM forward propagation primitive"

    def fail(*given: object) -> None:
        raise RuntimeError(f"{missing}. Run workload with environment variable ONEDNN_VERBOSE=all")

    monkeypatch.setattr(run, "run_experiment", fail)
    assert run_job(tmp_path, 0.0, run_config("tracker=none")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert missing in line
    assert line.endswith(f"or another module; the records so far are kept in {tmp_path}")
