"""The commands of README.md and docs/quickstart.md run, and the documents name what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import reduce
from itertools import chain
from pathlib import Path

import pytest

from runner.common.records import unbeaten_baselines

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LOCAL_PATH = re.compile(r"`((?:runner|tasks|reporting|configs|benchmarks|tests|docs)/[\w/.-]+\.(?:py|yaml|md|json))`")
# Options of the pages' commands -> what the test runs in their place.
SHORTER = {
    "train.epochs=3": "train.epochs=1",
    "train.max_updates=100": "train.max_updates=20",
    "experiment=unit_bow": "experiment=unit_bow train.epochs=1",
}


def blocks(page: str) -> list[str]:
    """Return the shell blocks of a page."""
    result: list[str] = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    return result


@pytest.mark.long
@pytest.mark.timeout(2400)  # two dozen commands one after another; a busy machine takes longer
def test_the_commands_run_as_shown(tmp_path: Path) -> None:
    """Run the blocks of README.md, then those of the quickstart that it lacks, in one folder; trainings are shorter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HYDROMEL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    pages = [blocks(page) for page in ("README.md", "docs/quickstart.md")]
    assert all(len(page) >= 3 for page in pages)
    assert pages[0][0] == pages[1][0], "both pages train the same first model"
    shown = list(dict.fromkeys(chain(*pages)))
    text = "".join(shown)
    assert all(re.search(rf"\b{re.escape(option)}\b", text) for option in SHORTER)
    work = tmp_path / "work"
    work.mkdir()
    output = ""
    for block in shown:
        script = reduce(lambda text, option: text.replace(option, SHORTER[option]), SHORTER, block)
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        output += done.stdout
    result = json.loads((work / "runs" / "first" / "result.json").read_text(encoding="utf-8"))
    assert unbeaten_baselines(result) == {}, "the first model does not beat its baselines"
    assert result["metrics"]["test"]["f1"] > 2 * result["baselines"]["most_frequent_tag"]["f1"]
    assert "test f1" in output
    assert (work / "reports" / "tour" / "index.html").stat().st_size > 10_000
    assert not left_behind(work), "git would see what the commands left"


def left_behind(work: Path) -> list[str]:
    """Return the files in `work` that the repository's .gitignore does not cover."""
    if shutil.which("git") is None:
        return []
    shutil.copy(ROOT / ".gitignore", work)
    subprocess.run(["git", "init", "-q"], cwd=work, check=True)
    done = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=work, capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if not line.endswith(".gitignore")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" in target:
            continue
        there = (page.parent / target) if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{page.name}: {target}#{anchor}"
    for path in LOCAL_PATH.findall(text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def anchors(text: str) -> set[str]:
    """Return the names by which the headings of a page are linked to."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_its_tables_are_narrow() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert max(line.replace("\\|", "").count("|") for line in lines) <= 7, "more than six columns"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.name == "index.md" or f"({page.relative_to(ROOT / 'docs')})" in index, page


@pytest.mark.parametrize("group", ["batching", "task"])
def test_the_readme_or_quickstart_name_every_choice(group: str) -> None:
    pages = README + (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
    assert names
    for name in names:
        assert re.search(rf"\b{name}\b", pages), f"{group}={name} is on neither page"


@pytest.mark.parametrize("target", ["demo", "test", "check", "setup", "ui", "bench"])
def test_the_makefile_has_what_it_names(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert f"make {target}" in README
