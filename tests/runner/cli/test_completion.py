"""Completion: commands, flags, runs and options of the config, in bash and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.completion import proposals
from runner.cli.main import COMMANDS

MODULES = {name: module for name, (module, _) in COMMANDS.items()}


@pytest.mark.parametrize(
    ("line", "found", "left_to_hydra"),
    [
        ("hydromel ", list(MODULES), "hydromel "),
        ("hydromel au", ["audit"], "hydromel au"),
        ("hydromel audit --ht", ["--html"], None),
        ("hydromel predict --format ", ["lines", "columns", "conllu", "csv", "tsv", "jsonl"], None),
        ("hydromel predict --output ", [], None),
        ("hydromel predict r", ["runs/first"], None),
        ("hydromel compare runs/first r", ["runs/first"], None),
        ("hydromel audit enc", [], "hydromel enc"),
        ("hydromel audit task=tag --html a.html encoder=", [], "hydromel task=tag encoder="),
        ("hydromel train task=", [], "hydromel task="),
        ("hydromel -m task=", [], "hydromel -m task="),
        ("hydromel task=tag enc", [], "hydromel task=tag enc"),
        ("hydromel --multi", ["--multirun"], None),
    ],
)
def test_what_may_follow(
    line: str, found: list[str], left_to_hydra: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    assert proposals(line, MODULES) == (found, left_to_hydra)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose `hydromel` is this checkout's."""
    program = tmp_path / "bin" / "hydromel"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom runner.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    root = str(Path(__file__).parents[3])
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": root}


BASH = """
eval "$(hydromel -sc install=bash)"
COMP_LINE="hydromel audit encoder=ls"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
hydra_bash_completion
echo "${COMPREPLY[@]}"
"""


def test_bash(environment: dict[str, str], tmp_path: Path) -> None:
    command = ["bash", "--norc", "-c", BASH]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["encoder=lstm"], done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(environment: dict[str, str], tmp_path: Path) -> None:
    code = "hydromel -sc install=fish | source; complete -C 'hydromel audit encoder=ls'"
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(["fish", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["encoder=lstm"], done.stderr
