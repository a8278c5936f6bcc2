"""The machine's description."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from runner.tracking import provenance

ARM = """Architecture:             aarch64
Vendor ID:                ARM
  Model name:             -
Model name:               Neoverse-N1
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ARM, "Neoverse-N1"),
        ("Architecture: x86_64\nModel name:   AMD EPYC 9B14\n", "AMD EPYC 9B14"),
        ("Architecture: riscv64\nModel name: -\n", "here"),
        ("", "here"),
    ],
)
def test_a_processor_has_a_name_on_any_architecture(
    output: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, output, "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "here")
    assert provenance.cpu_name() == expected


def test_a_processor_has_a_name_without_lscpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*command: Any, **options: Any) -> None:
        raise FileNotFoundError("lscpu")

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "aarch64")
    assert provenance.cpu_name() == "aarch64"
