"""What commands say when they fail."""

from __future__ import annotations

import pytest

from runner.common.command_line import failed


def test_a_failure_is_one_line_that_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert failed("v.bin:1: '\x1b[2J\x00é 東京 😀'\n  is no\tword") == 1
    assert capsys.readouterr().err == "error: v.bin:1: '\ufffd[2J\ufffdé 東京 😀' is no word\n"
