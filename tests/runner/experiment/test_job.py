"""How a run's process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.common import run_schema
from runner.experiment import run
from runner.experiment.job import run_job
from tests.helpers.composed import run_config


@pytest.mark.parametrize("begun", [True, False])
def test_a_missing_kernel_is_one_line_that_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], begun: bool
) -> None:
    missing = "could not create a primitive descriptor for the LSTM forward propagation primitive"

    def fail(*given: object) -> None:
        raise RuntimeError(f"{missing}. Run workload with environment variable ONEDNN_VERBOSE=all")

    monkeypatch.setattr(run, "run_experiment", fail)
    if begun:
        (tmp_path / run_schema.RUN).touch()
    assert run_job(tmp_path, 0.0, run_config("tracker=none")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert missing in line
    kept = f"the records so far are kept in {tmp_path}" if begun else "the run has not started"
    assert line.endswith(f"or another module; {kept}")


@pytest.mark.parametrize("content", ["", "[a]", "7"])
def test_a_config_that_is_no_mapping_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / run_schema.RESOLVED).write_text(content, encoding="utf-8")
    assert run_job(tmp_path, 0.0) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / run_schema.RESOLVED}: damaged, it has no options\n"
