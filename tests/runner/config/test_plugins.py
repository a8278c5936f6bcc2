"""Plugins are found in the working directory, after everything that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.common.errors import HydromelError
from runner.config.instantiate import find_plugin, locate

PART = "class Part:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory; Python's path is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    return tmp_path


def test_a_module_in_the_working_directory_is_found(folder: Path) -> None:
    (folder / "parts_of_a_test.py").write_text(PART, encoding="utf-8")
    actual = locate({"_target_": "parts_of_a_test.Part"}, "encoder", ["parts_of_a_test"])
    assert actual.__module__ == "parts_of_a_test"
    find_plugin("parts_of_a_test")
    assert sys.path.count(str(folder)) == 1
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize("name", ["no_such_parts", "no_such_parts.inner", "no-such-parts", ""])
def test_a_name_that_is_not_found_says_where_was_looked(folder: Path, name: str) -> None:
    where = rf"^plugins: no module '{name}' in {re.escape(str(folder))}, in PYTHONPATH or among the installed packages$"
    with pytest.raises(HydromelError, match=where):
        find_plugin(name)


def test_a_name_that_an_installed_package_has_is_explained(folder: Path) -> None:
    (folder / "configs").mkdir()
    (folder / "configs" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "configs" / "mine.py").write_text(PART, encoding="utf-8")
    with pytest.raises(
        HydromelError, match=r"; 'configs' is .*__init__\.py; if that is not your module, rename yours$"
    ):
        find_plugin("configs.mine")


def test_a_users_own_folders_replace_no_package_in_the_process_of_a_job(tmp_path: Path) -> None:
    for name in ("configs", "tasks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')", encoding="utf-8")
    code = (
        "import subprocess; from pathlib import Path; from runner.sweeps.process import job_command\n"
        "command = job_command(Path('run'))\n"
        "command[2:] = ['-c', 'import configs, tasks; print(configs.__file__, tasks.__file__)']\n"
        "print(subprocess.run(command, capture_output=True, text=True))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "returncode=0" in done.stdout, done.stderr + done.stdout
    assert str(tmp_path) not in done.stdout
