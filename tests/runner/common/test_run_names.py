"""A run is named by its folder, or a name or an id; a name that fits several runs is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.common.errors import HydromelError
from runner.common.run_names import find_run, run_name
from runner.common.run_schema import RUN
from tests.helpers.run_folders import start


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs in a sweep, one by itself, and a damaged one."""
    for folder in ("tour/packed", "tour/padmask", "2026/first"):
        start(tmp_path / "runs" / folder).__exit__(None, None, None)
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / RUN).write_text("{")
    return tmp_path / "runs"


def test_by_folder_name_and_id(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runs / "2026" / "first"
    run_id = json_of(first)["run_id"]
    for name in (str(first), "2026/first", "first", run_id):
        assert find_run(name, runs) == first
    monkeypatch.chdir(runs.parent)
    assert find_run("runs/2026/first", Path("runs")) == Path("runs/2026/first")
    assert find_run("damaged", runs) == runs / "damaged"
    assert find_run("nothing", runs) is None
    assert find_run("first", Path("elsewhere")) is None
    monkeypatch.setenv("HOME", str(runs))
    assert find_run("~/2026/first", Path("elsewhere")) == first
    assert run_name("run=~/2026/first") == run_name("~/2026/first") == str(first)


def json_of(folder: Path) -> dict[str, str]:
    import json

    content: dict[str, str] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", ["tour", "RUNS/tour", "same"])
def test_what_fits_several_runs_is_told(runs: Path, name: str) -> None:
    for folder in ("a", "b"):
        start(runs / folder / "same").__exit__(None, None, None)
    with pytest.raises(HydromelError, match=r"2 runs; give the folder of one: .*/(tour|same)") as error:
        find_run(name.replace("RUNS", str(runs)), runs)
    assert len(str(error.value).splitlines()) == 1


def test_a_path_that_is_no_run_is_left_to_the_reader(runs: Path) -> None:
    (runs.parent / "empty").mkdir()
    assert find_run(str(runs.parent / "empty"), runs) == runs.parent / "empty"
    assert find_run(str(runs / "damaged" / RUN), runs) == runs / "damaged" / RUN
