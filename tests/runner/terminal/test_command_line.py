"""What commands say when they fail."""

from __future__ import annotations

import pytest

from runner.terminal.command_line import exit_code, failed
from runner.terminal.console import show_messages


def test_a_failure_is_one_line_that_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    show_messages()
    assert failed("v.bin:1: '\x1b[2J\x00é 東京 😀'\n  is no\tword") == 1
    assert capsys.readouterr().err == "error: v.bin:1: '\ufffd[2J\ufffdé 東京 😀' is no word\n"
    assert failed(f"cannot write {'x' * 3000}/y: no space") == 1
    assert capsys.readouterr().err == f"error: cannot write {'x' * 400}... no space\n"
    assert failed(f"dropout=[{'0, ' * 3000}0]: give two numbers") == 1
    line = capsys.readouterr().err
    assert line.startswith("error: dropout=[0, 0, ")
    assert line.endswith(" 0]: give two numbers\n")
    assert len(line) < 1300


MISSING = "could not create a primitive descriptor for the LSTM forward propagation primitive"


def test_a_missing_kernel_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As in `hydromel-lr precision=bf16` with a plugin's LSTM, on a processor without AVX-512."""

    def work() -> int:
        raise RuntimeError(f"{MISSING}. Run workload with environment variable ONEDNN_VERBOSE=all to get more")

    assert exit_code(work) == 1
    assert capsys.readouterr().err == (
        f"error: this machine has no kernel for what the model computes ({MISSING}); use another precision "
        "(precision=float32) or another module\n"
    )


def test_another_error_keeps_its_traceback() -> None:
    def work() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        exit_code(work)
