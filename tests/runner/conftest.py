"""Runs that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.composed import run, run_as_command, tag_files
from tests.helpers.runs_of_tasks import FILES, OF_MODEL, SMALL, text_files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name small files of a tagging data set."""
    return tag_files(tmp_path_factory.mktemp("data"), rows=60)


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: list[str]) -> Path:
    """The folder of a run with the module's `OPTIONS` that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, *data, *request.module.OPTIONS)
    return folder


@pytest.fixture(scope="session")
def runs_of_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a small run of each kind of prediction."""
    folders = {}
    for name, files in FILES.items():
        folder = tmp_path_factory.mktemp(name)
        folders[name] = run_as_command(folder / "run", *files(folder), *SMALL, *OF_MODEL)
    return folders


@pytest.fixture(scope="session")
def language_model_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run of a language model of lines."""
    folder = tmp_path_factory.mktemp("lm")
    sizes = ("encoder=lstm", "encoder.hidden=8", "embedding.size=8")
    return run_as_command(folder / "run", *text_files(folder), *SMALL, *sizes)
