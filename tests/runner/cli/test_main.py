"""One command for all: each by its name, help and version at once, and training without a name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path

import pytest

from runner.cli import main as command
from runner.config.groups import names_by_group

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_of(*arguments: str) -> int:
    """The exit code of `hydromel ARGUMENT ...`."""
    try:
        return command.main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)


def test_each_command_is_also_a_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    named = {f"hydromel-{name}": "runner.cli.main:program" for name in command.COMMANDS if name != command.TRAIN}
    assert scripts == named | {"hydromel": "runner.cli.main:main"}


def test_a_program_runs_the_command_that_it_is_named_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hydromel-init", "--nonsense"])
    assert command.program() == 1
    assert "see hydromel-init --help" in capsys.readouterr().err


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_is_that_of_the_program(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(name, "--help") == 0
    through = capsys.readouterr().out
    with pytest.raises(SystemExit):
        import_module(command.COMMANDS[name][0]).main(["--help"])
    assert through == capsys.readouterr().out
    assert through.startswith("usage: hydromel")


def test_help_has_a_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    shown = capsys.readouterr().out
    for name, (_, text) in command.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", shown, re.M)
        assert name == command.TRAIN or re.search(rf"`(hydromel)?-{name}`", README), f"{name} is not in README.md"
    assert max(map(len, shown.splitlines())) <= 120


def test_help_is_also_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("help") == code_of("--help") == 0
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line_of_help() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        item = subprocess.run([sys.executable, "-m", "runner.cli.main", "--help"], stdout=full, stderr=-1, text=True)
    assert (item.returncode, item.stderr) == (1, "error: cannot write stdout: No space left on device\n")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out == f"hydromel {metadata.version('hydromel')}\n"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("comapre", "comapre: no such command; did you mean 'compare'? Commands: train, compare, plan"),
        ("batch_size", "batch_size: no such command. Commands"),
        ("x" * 5000, "no such command"),
        (__file__, f"did you mean data={__file__}?"),
    ],
)
def test_a_mistyped_command(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(word, "runs/first") == 1
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["task=tag"], ["-m", "seed=1,2"], ["~metric"], ["+x=1"], ["++x=1"], ["--config-dir", "c"], ["--cfg", "job"]],
)
@pytest.mark.parametrize("named", [[], ["train"]])
def test_what_is_no_command_trains(arguments: list[str], named: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[str]] = []

    def main(arguments: Sequence[str]) -> int:
        given.append(arguments)
        return 7

    monkeypatch.setattr("runner.cli.train.main", main)
    assert code_of(*named, *arguments) == 7
    assert given == [arguments]


def test_help_and_version_import_nothing_slow() -> None:
    code = (
        "import sys; from runner.cli.main import main\n"
        "main(['--version']); main(['--help']); main(['comapre'])\n"
        "slow = {'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich', 'yaml', 'torch', 'reporting', 'tasks'}\n"
        "print(sorted(slow & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_of_training_lists_every_group_and_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.yaml").touch()
    assert code_of("train", "--config-dir", str(tmp_path), "--help") == 0
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    for group, names in names_by_group([tmp_path]).items():
        assert {group, *names} <= words
    assert "mine" in words
    assert set(names_by_group([])) == {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()} - {
        "__pycache__"
    }
