"""Fixtures of tests that interrupt a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.composed import run, tag_files


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
