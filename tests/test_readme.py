"""The README's commands run, and name what there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
BIN = Path(sys.executable).parent


@pytest.mark.timeout(600)  # a dozen commands one after another; a busy machine takes longer
def test_the_tour_runs(tmp_path: Path) -> None:
    assert len(TOUR) >= 6
    for line in TOUR:
        command, *arguments = shlex.split(line)
        environment = {**os.environ, "HYDROMEL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(BIN / command), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "reports" / "tour" / "index.html").stat().st_size > 10_000
    assert (tmp_path / "mlflow.db").exists()


def test_every_link_and_config_that_it_names_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 8
    for link in links:
        assert (ROOT / link).exists(), link
    for group in ("encoder", "batching", "task", "optimizer", "schedule", "experiment", "tracker"):
        names = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert names, group
        for name in names:
            assert re.search(rf"\b{name}\b", README), f"{group}={name} is not in the README"


@pytest.mark.parametrize("target", ["demo", "test", "check", "setup", "ui"])
def test_the_makefile_has_what_it_names(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert f"make {target}" in README
