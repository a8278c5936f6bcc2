"""A new project: its files, and what is refused. Its commands run in tests/test_wheel.py."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from runner.cli.init import _FILES, main


def test_every_template_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a" / "b")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/a/b: a project of {len(_FILES)} files")
    made = {path.relative_to(tmp_path / "a" / "b").as_posix() for path in (tmp_path / "a" / "b").rglob("*.*")}
    assert set(_FILES) <= made
    templates = {path.name for path in (files("runner.cli") / "project").iterdir()}
    assert templates == {template for template in _FILES.values() if template}


def test_an_empty_folder_is_taken_and_any_other_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} is not empty (.github); give a new folder\n"
    assert main([str(tmp_path / "README.md")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_the_readme_names_what_there_is(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    for name in _FILES:
        if Path(name).suffix in (".py", ".yaml", ".yml", ".csv") and _FILES[name]:
            assert f"`{name}`" in readme
