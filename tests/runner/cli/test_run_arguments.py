"""Runs that are not finished: every command that uses one says how it ended, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runner.cli import audit, evaluate, generate, inspect, predict
from runner.cli.run_arguments import check_ended
from runner.common import run_schema
from runner.terminal.console import show_messages
from runner.tracking.run_folder import RunFolder

WHY = "the loss is nan at update 3"


def ended(folder: Path, status: str, error: str | None) -> Path:
    """A run's folder of which only `run.json` is left."""
    with RunFolder.open(folder) as run:
        run.begin(name="r", experiment=None, sweep_id=None, tags={}, tracker={})
        run.set_status(status, error)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        predict.main,
        generate.main,
        evaluate.main,
        lambda arguments: evaluate.main([*arguments, "--input", "-"]),
        inspect.main,
        audit.main,
    ],
    ids=["predict", "generate", "evaluate", "evaluate text", "inspect", "audit"],
)
def test_a_command_says_that_and_why_a_run_failed(
    command: Callable[[Sequence[str]], int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = ended(tmp_path / "run", run_schema.FAILED, WHY)
    assert command([str(folder)]) == 1
    expected = f"error: {folder}: that run failed ({WHY}); it has no checkpoints/best.safetensors yet\n"
    assert capfd.readouterr() == ("", expected)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (run_schema.FAILED, WHY, f"failed ({WHY})"),
        (run_schema.INTERRUPTED, "its process died", "was interrupted (its process died)"),
        (run_schema.RUNNING, None, "is running, or its process died"),
        (run_schema.FINISHED, None, None),
    ],
)
def test_a_checkpoint_of_an_unfinished_run_is_used_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, error: str | None, message: str | None
) -> None:
    show_messages()
    folder = ended(tmp_path / "run", status, error)
    (folder / run_schema.CHECKPOINTS).mkdir()
    (folder / run_schema.CHECKPOINTS / run_schema.BEST).touch()
    check_ended(folder)
    warning = f"warning: {folder}: that run {message}; its best checkpoint so far is used\n" if message else ""
    assert capsys.readouterr() == ("", warning)


def test_a_failed_run_that_goes_on_says_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    folder = ended(tmp_path / "run", run_schema.FAILED, WHY)
    with RunFolder.open(folder) as run:
        run.begin(name="r", experiment=None, sweep_id=None, tags={}, tracker={})
        assert run.run["error"] is None
    assert capsys.readouterr().out == f"continuing a run that failed ({WHY})\n"
    assert json.loads((folder / run_schema.RUN).read_text(encoding="utf-8"))["status"] == run_schema.RUNNING
