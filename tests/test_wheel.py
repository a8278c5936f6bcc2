"""The wheel works outside the checkout: it holds all that the commands need, and a new project runs with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runner", "tasks", "reporting", "configs")
FILES = ("pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the project, built without a network."""
    pytest.importorskip("setuptools", minversion="77", reason="the build needs setuptools 77: make setup installs it")
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=LEFT_OUT)
    for file in FILES:
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return source / "dist" / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the programs of a fresh environment, in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    python = str(programs / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]  # of the libraries that it needs
    (site / "libraries.pth").write_text("\n".join(others), encoding="utf-8")
    yield programs
    shutil.rmtree(folder)


def test_the_image_is_built_of_what_the_wheel_is_built_of() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = {name for names in copies for name in names}
    assert copied == {*PACKAGES, *FILES, "constraints.txt"}
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[0] == "*"
    assert copied <= {line[1:].rstrip("/") for line in allowed if line.startswith("!")}
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]


def test_the_wheel_has_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if name.split("/")[0] in PACKAGES}
    there = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    assert packed == {path.relative_to(ROOT).as_posix() for path in there if path.parent.name != "__pycache__"}
    assert {f"{package}/py.typed" for package in PACKAGES if package != "configs"} <= packed


@pytest.fixture
def run(programs: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that runs a program of the environment and returns its output."""

    def run(name: str, *arguments: str, where: Path = tmp_path) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "HYDROMEL_CACHE": str(tmp_path / "cache")}
        command = [str(programs / name), *arguments]
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_a_new_project_runs_outside_the_checkout(run: Callable[..., str], programs: Path, tmp_path: Path) -> None:
    assert Path(run("python", "-c", "import runner; print(runner.__file__)")).is_relative_to(programs.parent)
    project = tmp_path / "project"
    assert "README.md has its commands" in run("hydromel", "init", "project")
    first = ["--config-dir", "my_configs", "experiment=first", "train.max_updates=3"]
    quiet = ["tracker=none", "baselines=false", "hydra.run.dir=runs/first"]
    assert "-> " in run("hydromel", *first, *quiet, where=project)
    assert "Report: " in run("hydromel", "compare", "first", "--no-mlflow", where=project)
    done = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "tests", where=project)
    assert "2 passed" in done
