"""Samples of the machine, beside a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.profiling.system_monitor import SystemMonitor, check_installed
from runner.tracking.run_folder import read_metrics


def test_samples_are_records_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("psutil", reason="needs the extra system")
    path = tmp_path / run_schema.SYSTEM

    def sample_until(count: int) -> None:
        with SystemMonitor(path, 0.01):
            until = time.monotonic() + 60
            while time.monotonic() < until and not (path.exists() and path.read_bytes().count(b"\n") >= count):
                time.sleep(0.01)

    sample_until(2)
    first = path.read_bytes().count(b"\n")
    sample_until(first + 1)  # a run that is resumed
    samples = [record for record, _ in read_metrics(tmp_path, name=run_schema.SYSTEM)]
    assert [sample["step"] for sample in samples] == list(range(len(samples)))
    figures = samples[-1]["metrics"]
    assert figures.keys() >= {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    assert 0 < (figures["system/system_memory_usage_percentage"] or 0) <= 100


def test_none_are_taken_unless_asked_for(tmp_path: Path) -> None:
    with SystemMonitor(tmp_path / run_schema.SYSTEM, None):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psutil", reason="needs the extra system")
    monitor = SystemMonitor(tmp_path / "nowhere" / run_schema.SYSTEM, 0.01)
    with monitor:
        monitor._thread.join(60)
    assert "the machine is no longer sampled" in caplog.text


def test_without_psutil_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(HydromelError, match=r"^system_metrics_s=5 needs psutil: pip install hydromel\[system\]"):
        check_installed(5.0)
