"""The console: names and words wrap; figures stay whole, even if that needs a wider table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reporting.views import console, report
from reporting.views.report import ComparisonReport
from reporting.views.table_format import Cell, Table, TableColumn, markdown


def shown(table: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(report, "first_tables", lambda _: [table])
    console.show(ComparisonReport(["x"], 0, 0.95, [], {}, []))
    return capsys.readouterr().out


@pytest.mark.parametrize(("figures", "fits"), [(2, True), (9, False)])
def test_figures_are_never_cut(
    figures: int, fits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [TableColumn("strategy", "", lambda _: Cell(""), is_text=True)]
    columns += [TableColumn("speed", "real tokens/s", lambda _: Cell("")) for _ in range(figures)]
    name = "padmask width_multiple=8 micro_batch=4"
    row = [Cell(name), *[Cell("1,234,567", "1,230,000–1,240,000")] * figures]
    out = shown(Table("T", columns, [row]), monkeypatch, capsys)
    assert out.count("1,234,567") == out.count("1,230,000–1,240,000") == out.count("real tokens/s") == figures
    assert name not in out
    assert all(word in out for word in name.split())
    assert (max(map(len, out.splitlines())) <= 80) == fits


def test_the_column_with_most_to_spare_gives_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = ["padmask", "test/accuracy", "1" * 20, "2" * 25, "+0 to +0"]
    columns = [TableColumn(head, "", lambda _: Cell(""), wraps=at in (1, 4)) for at, head in enumerate(heads)]
    out = shown(Table("T", columns, [[Cell(head) for head in heads]]), monkeypatch, capsys)
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("test/accuracy") == out.count("+0 to") == 2
    assert "+0 to +0" not in out


def test_many_groups_take_few_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console.tables, "heading", lambda group: f"group {group}")
    monkeypatch.setattr(console, "conclusion", lambda group, confidence: f"conclusion {group}")
    monkeypatch.setattr(report, "warnings", lambda _: [])
    monkeypatch.setattr(report, "last_lines", lambda _: [])
    table = Table("T", [TableColumn("figure", "", lambda _: Cell(""))], [[Cell(f"row{row}")] for row in range(40)])
    monkeypatch.setattr(report, "first_tables", lambda _: [table])
    console.show(ComparisonReport(["x"], 0, 0.95, [*range(40)], {}, []))  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert "T (the first 8 of 40 rows)" in " ".join(out.split())
    assert ("row7" in out, "row8" in out) == (True, False)
    assert ("conclusion 2" in out, "conclusion 3" in out) == (True, False)
    assert "... and 37 more groups; all tables, notes and warnings are in the report" in out


@pytest.mark.parametrize(("runs", "is_whole"), [(console.MOST_RUNS, True), (console.MOST_RUNS + 1, False)])
def test_many_runs_of_one_group_take_few_lines(
    runs: int, is_whole: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [Table(f"T{n}", [TableColumn("a", "", lambda _: Cell(""))], [[Cell(f"cell{n}")]]) for n in range(4)]
    monkeypatch.setattr(console.tables, "heading", lambda group: "heading")
    monkeypatch.setattr(console.tables, "tables", lambda group, confidence: shown)
    monkeypatch.setattr(console.tables, "notes", lambda group: ["a note"])
    monkeypatch.setattr(console, "conclusion", lambda group, confidence: "conclusion")
    for name in ("warnings", "last_lines", "first_tables"):
        monkeypatch.setattr(report, name, lambda _: [])
    group = SimpleNamespace(sentences=["a sentence"], caveats=["a caveat"])
    console.show(ComparisonReport(["x"], runs, 0.95, [group], {}, []))  # type: ignore[list-item]
    out = capsys.readouterr().out
    assert "conclusion" in out
    assert [f"cell{n}" in out for n in range(4)] == [True, True, is_whole, is_whole]
    assert [text in out for text in ("a sentence", "a note", "a caveat")] == [is_whole] * 3
    assert ("all tables, notes and warnings are in the report" in out) is not is_whole
    assert "more groups" not in out


def test_what_is_sure_in_markdown() -> None:
    columns = [TableColumn(name, "", lambda _: Cell("")) for name in "abc"]
    row = [Cell("41.00", "± 1.20"), Cell("13,000", "12,750–13,250"), Cell("7")]
    assert markdown(Table("", columns, [row])).endswith("| 41.00 ± 1.20 | 13,000 (12,750–13,250) | 7 |")
