"""The overview table of an ablation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reporting.compare import main


def ablation(folder: Path, write_run: Any, higher_is_better: bool) -> None:
    """Two settings of one title with two seeds each, and a model of another title."""
    for name, rate, f1 in (("slow", 1, 30.0), ("fast", 2, 50.0), ("other", 1, 99.0)):
        for seed in (1, 2):
            change: dict[str, Any] = {
                "provenance.comparison_hash": name,
                "quality.higher_is_better": higher_is_better,
                "encoder": "conv" if name == "other" else "blstm",
            }
            run = write_run(folder / f"{name}{seed}", "packed", seed, f1=f1 + seed, change=change)
            (run / "resolved.yaml").write_text(f"optimizer: {{lr: {rate}}}\n")


@pytest.mark.parametrize(("higher", "order"), [(True, ["2", "1"]), (False, ["1", "2"])])
def test_settings_of_one_title_stand_in_one_table_best_first(
    tmp_path: Path, write_run: Any, capsys: pytest.CaptureFixture[str], higher: bool, order: list[str]
) -> None:
    ablation(tmp_path / "runs", write_run, higher)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    console = capsys.readouterr().out
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8").partition("\n## ")[0]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8").partition("<main")[2].partition("<section")[0]
    first_table = console[: console.index("Quality")]
    for shown in (first_table, markdown, page):
        # rows of the table; warnings before it name settings too
        rows = re.findall(r"(?:^|\| |<t[dh][^>]*>)\s*optimizer\.lr=(\d)", shown, re.MULTILINE)
        assert rows[:2] == order, shown
    assert "| optimizer.lr=2 | packed | 2 | 51.50 ± 6.35 |" in markdown
    assert markdown.count("| packed |") == 2  # the model of another title is only in its own table


def test_one_configuration_needs_no_overview(tmp_path: Path, write_run: Any) -> None:
    for seed in (1, 2):
        write_run(tmp_path / "runs" / str(seed), "packed", seed)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "|" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8").partition("\n## ")[0]


def test_pictures_of_the_first_groups_and_the_page_for_the_others(tmp_path: Path, write_run: Any) -> None:
    for number in range(6):
        change = {"provenance.comparison_hash": str(number), "dataset": f"d{number}"}
        write_run(tmp_path / "runs" / str(number), "packed", 1, change=change)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert set(re.findall(r"\]\((\S+\.png)\)", markdown)) == pictures
    assert {name[0] for name in pictures} == {"1", "2", "3", "4"}
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for anchor in re.findall(r"\(index\.html#(\S+)\)", markdown):
        assert f'<section id="{anchor}">' in page
        assert f'<figure id="{anchor}-quality">' in page
    assert markdown.count("index.html#") == 2
