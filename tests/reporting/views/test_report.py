"""The comparison itself: figures computed by hand, separate groups, and agreement of all views."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from reporting import compare
from reporting.views import files
from reporting.views.table_format import csv_cell


def compared(arguments: list[str], out: Path) -> dict[str, Any]:
    assert compare.main([*arguments, "--out", str(out), "--json", str(out / "copy" / "figures.json")]) == 0
    assert (out / "report.json").read_bytes() == (out / "copy" / "figures.json").read_bytes()
    report: dict[str, Any] = json.loads(
        (out / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    return report


def strategies(group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {strategy["name"]: strategy for strategy in group["strategies"]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_figures_by_hand(sweep: Path, write_run: Any, out: Path) -> None:
    write_run(sweep / "night" / "auto-2", "auto", 2, f1=50.0)
    report = compared(["night", "--runs", str(sweep)], out)
    (group,) = report["groups"]
    assert [strategy["name"] for strategy in group["strategies"]] == [
        "size1",
        "bucketed",
        "padmask",
        "packed",
        "unmasked",
        "auto",
    ]
    assert [strategy["known_wrong"] for strategy in group["strategies"]] == [False, False, False, False, True, False]
    packed, auto = strategies(group)["packed"], strategies(group)["auto"]
    low, high = scipy.stats.t.interval(0.95, 2, 42.0, scipy.stats.sem([41.0, 42.0, 43.0]))
    expected = {"n": 3, "mean": 42.0, "low": pytest.approx(low), "high": pytest.approx(high)}
    assert packed["quality"] == expected
    assert packed["against_padmask"] == {
        "difference": {"n": 3, "mean": 0.0, "low": 0.0, "high": 0.0},
        "on_examples": None,
        "ratio": pytest.approx({"n": 3, "mean": 1.375, "low": 1.375, "high": 1.375}),
        "says": "equal",
    }
    assert strategies(group)["padmask"]["against_padmask"] is None
    assert auto["against_padmask"] == {
        "difference": {"n": 1, "mean": 8.0, "low": None, "high": None},
        "on_examples": None,
        "ratio": {"n": 1, "mean": pytest.approx(0.625), "low": None, "high": None},
        "says": "undecided",
    }
    assert group["comparisons"] == 5
    assert packed["real_tokens_per_s"] == pytest.approx({"n": 3, "median": 11440, "low": 11220, "high": 11660})
    assert packed["speedup_over_size1"] == pytest.approx({"n": 3, "mean": 11, "low": 11, "high": 11})
    assert strategies(group)["padmask"]["padding_share"] == 0.25
    assert strategies(group)["padmask"]["padding_by_cause"] == pytest.approx(
        {"spread": 0.2, "last_batch": 0.0125, "rounding": 0.0375}
    )
    assert group["majority"] == {"accuracy": 88.125, "f1": 0.0}
    assert "do not have the same seeds" in " ".join(group["caveats"])


@pytest.mark.parametrize(("higher", "sign"), [(True, 1), (False, -1)])
def test_seconds_to_target(tmp_path: Path, write_run: Any, out: Path, higher: bool, sign: int) -> None:
    curves = {
        "padmask": [(1.0, 10.0), (2.0, 30.0), (3.0, 25.0)],
        "packed": [(1.0, 5.0), (1.5, 40.0)],
        "bucketed": [(9.0, 29.9)],
    }
    for name, curve in curves.items():
        change = {"quality.higher_is_better": higher}
        write_run(tmp_path / "r" / name, name, 1, valid=[(s, sign * q) for s, q in curve], change=change)

    def when(arguments: list[str]) -> dict[str, Any]:
        (group,) = compared([str(tmp_path / "r"), *arguments], out)["groups"]
        return {"target": group["target"]["quality"]} | {
            name: strategy["seconds_to_target"]["median"] for name, strategy in strategies(group).items()
        }

    assert when([]) == {"target": sign * 29.9, "bucketed": 9.0, "padmask": 2.0, "packed": 1.5}
    assert when([f"--target={sign * 35}"]) == {"target": sign * 35, "bucketed": None, "padmask": None, "packed": 1.5}


def test_groups_are_never_pooled(sweep: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another configuration, and the same one on changed data, are separate groups; headings show the difference."""
    for seed in (1, 2, 3):
        folder = write_run(sweep / f"b{seed}", "packed", seed, f1=99.0, change={"provenance.comparison_hash": "hash2"})
        (folder / "resolved.yaml").write_text("batching: {name: packed}\ntrain: {epochs: 9}\n")
        write_run(sweep / f"c{seed}", "packed", seed, f1=9.0, change={"provenance.data_fingerprint": "changed"})
    report = compared(["--runs", str(sweep)], out)
    means = {
        (group["comparison_hash"], group["data_fingerprint"]): strategies(group)["packed"]["quality"]["mean"]
        for group in report["groups"]
    }
    assert means == {("hash", "data"): 42.0, ("hash2", "data"): 99.0, ("hash", "changed"): 9.0}
    assert [group["settings"].get("train.epochs") for group in report["groups"]] == ["6", "6", "9"]
    assert "train.epochs=9" in capsys.readouterr().out


def test_the_newest_of_repeated_runs_counts(tmp_path: Path, write_run: Any, out: Path) -> None:
    for name, f1 in (("old", 1.0), ("new", 2.0), ("older", 3.0)):
        folder = write_run(tmp_path / "r" / name, "packed", 1, f1=f1)
        created = {"old": 5.0, "new": 9.0, "older": 1.0}[name]
        run = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run | {"created": created}))
    (group,) = compared([str(tmp_path / "r")], out)["groups"]
    assert strategies(group)["packed"]["quality_by_seed"] == {"1": 2.0}
    assert "2 older runs of the same strategy, seed and turn left out: the newest counts." in group["caveats"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("provenance.git_commit", 40 * "d", "made by different code: they differ in git_commit (abc, dddddddddd)."),
        ("provenance.jobs", 2, "1 of 2 runs ran beside other jobs of their sweep or search: their speeds, times and"),
        ("provenance.load_average", 9.5, "The machine was busy with other work in 1 of 2 runs (load up to 9.5)"),
        (
            "provenance.host",
            "two",
            "Times and memory are not comparable and are left out: these runs differ in host (one, two).",
        ),
        (
            "provenance.cpu",
            "EPYC",
            "Times and memory are not comparable and are left out: these runs differ in cpu (EPYC, Xeon).",
        ),
        ("provenance.device", None, "these runs differ in device (not recorded, cpu)."),
        ("provenance.git_commit", "def", "made by different code: they differ in git_commit (abc, def)."),
        ("metrics.test.f1", float("nan"), "Left out of quality, since f1 on test is not finite: packed seed 1."),
    ],
)
def test_caveats(tmp_path: Path, write_run: Any, out: Path, key: str, value: object, message: str) -> None:
    write_run(tmp_path / "r" / "a", "padmask", 1)
    write_run(tmp_path / "r" / "b", "packed", 1, change={key: value})
    (group,) = compared([str(tmp_path / "r")], out)["groups"]
    assert message in " ".join(group["caveats"])
    assert "One seed only: no interval over seeds can be given" in " ".join(group["caveats"])


@pytest.mark.parametrize(("higher", "order"), [(True, ["svm", "majority", "other"]), (False, ["majority", "svm"])])
def test_the_best_of_the_simplest_models_stands_beside_the_networks(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str], higher: bool, order: list[str]
) -> None:
    """Baselines come from any run that has them; those without a finite figure are left out."""
    others = {"svm": {"f1": 33.125, "seconds": 0.5}, "other": {"f1": -1.0 if higher else None}}
    change = {"baselines": others, "quality.higher_is_better": higher}
    write_run(tmp_path / "r" / "a", "padmask", 1, change={"quality.higher_is_better": higher})
    write_run(tmp_path / "r" / "b", "packed", 1, change=change)
    (group,) = compared([str(tmp_path / "r")], out)["groups"]
    assert list(group["baselines"]) == order
    shown = {"svm": "33.12", "majority": "0.00"}[order[0]]
    row = rf"{order[0]}\W+simplest model\W+.*\b{re.escape(shown)}\b"
    assert re.search(row, (out / "report.md").read_text())
    assert "simplest model" in capsys.readouterr().out
    assert f'<tr class="simplest-model">\n<td class="text">{order[0]}<' in (out / "index.html").read_text()
    assert f"The simplest models, test f1: {order[0]} {shown}, {order[1]}" in (out / "report.md").read_text()


def test_comparable_runs_have_no_caveat(sweep: Path, out: Path) -> None:
    (group,) = compared(["night", "--runs", str(sweep)], out)["groups"]
    assert group["caveats"] == []


def test_views_agree(
    sweep: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Console, Markdown and HTML show the figures of the JSON, rounded."""
    monkeypatch.setenv("COLUMNS", "120")
    (group,) = compared(["night", "--runs", str(sweep)], out)["groups"]
    console = capsys.readouterr().out
    views = {"console": console, **{name: (out / name).read_text() for name in ("report.md", "index.html")}}
    assert "\x1b" not in console
    assert max(len(line) for line in console.splitlines()) <= 120
    assert str(out / "index.html") in console.replace("\n", "")
    for name, view in views.items():
        for strategy in group["strategies"]:
            for figure in (
                f"{strategy['quality']['mean']:.2f}",
                f"± {strategy['quality']['high'] - strategy['quality']['mean']:.2f}",
                f"{strategy['seconds_to_target']['median']:,.1f}",
                f"{strategy['real_tokens_per_s']['median']:,.0f}",
                f"{strategy['real_tokens_per_s']['low']:,.0f}–{strategy['real_tokens_per_s']['high']:,.0f}",
                f"{strategy['speedup_over_size1']['mean']:.1f}",
                f"{100 * strategy['padding_share']:.1f}",
                f"{strategy['peak_memory_bytes']['median'] / 2**20:.0f}",
                strategy["kernels"][0],
            ):
                assert figure in view, (name, strategy["name"], figure)
        flat = " ".join(re.sub(r"\s+", " ", view).split())
        assert "made the same 312 updates" in flat
        assert "f1 0.00, accuracy 88.12" in flat
        assert "known wrong" in flat


def test_eighty_columns_cut_nothing(
    sweep: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # too narrow: 80 columns are used
    compared(["night", "--runs", str(sweep)], out)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80 or str(out) in lines[-1]
    assert any("bucketed" in line and "13,000" in line for line in lines)
    assert any("12,750–13,250" in line for line in lines)


def test_one_seed_has_a_value_and_says_that_it_has_no_interval(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "r" / "a", "padmask", 1, f1=40.0)
    compared([str(tmp_path / "r")], out)
    shown = capsys.readouterr().out
    assert "40.00" in shown
    assert "one seed" in shown
    assert "±" not in shown.replace("± 95 %", "")


EVIL = "<script>alert(1)</script>|`[red]$x$"


def test_names_are_text_in_every_view(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = {"dataset": EVIL, "kernel": EVIL, "memory.source": EVIL, "name": EVIL}
    write_run(tmp_path / "r" / "a", EVIL, 1, change=change)
    write_run(tmp_path / "r" / "b", "padmask", 1, change=change)
    compared([str(tmp_path / "r")], out)
    assert EVIL in capsys.readouterr().out
    for name in ("index.html", "report.md"):
        text = (out / name).read_text()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)" in text
    assert "|`" not in (out / "report.md").read_text()
    assert all(path.parent == out for path in out.glob("**/*.png"))


@pytest.mark.filterwarnings("ignore:Glyph")  # matplotlib's, which has no picture of a control character
def test_names_command_no_terminal_and_compute_in_no_spreadsheet(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "=HYPERLINK(1)\x1b]0;owned\x07 ![x](http://x) a_b"
    write_run(tmp_path / "r" / "a", evil, 1, change={"dataset": evil, "kernel": evil, "provenance.host": "@x"})
    (tmp_path / "r" / f"\x1b[2J{evil[:9]}").mkdir()
    (tmp_path / "r" / f"\x1b[2J{evil[:9]}" / "run.json").write_text('{"run_id": "\\u001b[31m"}')
    table = tmp_path / "runs.csv"
    compared([str(tmp_path / "r"), "--csv", str(table)], out)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, (out / "report.md").read_text(), table.read_text()):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "=HYPERLINK(1)" in printed.out
    assert "!\\[x\\](http://x) a_b" in (out / "report.md").read_text()
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["strategy"].startswith("'=HYPERLINK(1)\ufffd]0;owned")
    assert "'@x" in row.values()


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_a_folder_whose_name_is_not_utf_8_is_compared(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"a\xff")
    write_run(tmp_path / name / "a", "packed", 1)
    (tmp_path / name / "b").mkdir()
    (tmp_path / name / "b" / "run.json").write_text("{")
    (left_out,) = compared([str(tmp_path / name)], out)["damaged"]
    assert os.fsencode(tmp_path / name) in os.fsencode(left_out)
    assert f"{tmp_path}/a\ufffd/b" in capsys.readouterr().out
    assert "a\\udcff/b" in (out / "index.html").read_text()


@pytest.mark.parametrize("value", [None, -1.5, 3, "", "-1.5", "+1e3", "-inf", "a=b", "é -x", "tag · wnut17"])
def test_figures_and_plain_names_stay_in_a_cell(value: object) -> None:
    assert csv_cell(value) == value


@pytest.mark.parametrize("value", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "\n=1", "-x", "--1"])
def test_a_formula_is_text_in_a_cell(value: str) -> None:
    assert csv_cell(value) == f"'{value}"
    assert csv_cell(f"\r{value}") == f"\ufffd{value}"


def test_missing_measurements_are_dashes_beside_others_and_no_column_alone(
    tmp_path: Path, write_run: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ("speed", "tokens", "padding", "memory", "majority", "kernel", "metrics.test.f1", "seconds")
    nothing = dict.fromkeys(missing)
    folder = write_run(tmp_path / "r" / "a", "padmask", 1, change=nothing)
    (folder / "metrics.jsonl").unlink()
    (folder / "resolved.yaml").unlink()
    (group,) = compared([str(tmp_path / "r")], out)["groups"]
    (padmask,) = group["strategies"]
    assert (padmask["quality"], padmask["real_tokens_per_s"], padmask["padding_share"]) == (None, None, None)
    alone = capsys.readouterr().out
    assert "—" not in alone
    assert "speed" not in alone
    write_run(tmp_path / "r" / "b", "packed", 1)
    compared([str(tmp_path / "r")], out)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["padmask"]]
    assert [row.count("—") for row in rows] == [2, 3, 2, 1]  # quality, speed, memory, device


PLOTS = ("memory", "padding", "quality", "quality_speed", "throughput")


def test_a_report_is_written_again(sweep: Path, out: Path) -> None:
    assert compared(["night", "--runs", str(sweep)], out) == compared(["night", "--runs", str(sweep)], out)
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        *(f"1-tag-wnut17-word-rnn-{name}.png" for name in PLOTS),
        "index.html",
        "report.json",
        "report.md",
    ]
    assert "](1-tag-wnut17-word-rnn-quality.png)" in (out / "report.md").read_text()


def test_default_folder_stays_below_reports(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare.main(["runs/../runs/night", "--runs", "runs"]) == 0
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["runs---runs-night"]


def test_an_interrupted_comparison_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "compare", interrupt)
    assert compare.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_plots_are_drawn_of_the_first_groups(
    tmp_path: Path, write_run: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DRAWN_GROUPS", 1)
    monkeypatch.setattr(files, "UNDRAWN", "not drawn")
    for dataset in ("a", "b"):
        write_run(tmp_path / dataset, "padmask", 1, change={"dataset": dataset})
    compared([str(tmp_path)], out)
    page, text = ((out / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    for view, mark in ((page, "<svg"), (text, "![")):
        first, second = view.split("not drawn")
        assert mark in first
        assert mark not in second
    assert page.index('id="group-2"') < page.index("not drawn")


def test_many_runs_are_read_fast(tmp_path: Path, write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred runs in four groups: some 1.5 s of one core, without the plots, whose time does not grow with runs."""
    monkeypatch.setattr(files, "plots", lambda *arguments: [])
    for seed in range(20):
        for batching in ("size1", "bucketed", "padmask", "packed", "unmasked"):
            write_run(
                tmp_path / "r" / f"{batching}-{seed}",
                batching,
                seed,
                change={"provenance.comparison_hash": f"{seed % 4}"},
            )
    start = time.process_time()
    assert compare.main([str(tmp_path / "r"), "--out", str(tmp_path / "out")]) == 0
    assert time.process_time() - start < 5
