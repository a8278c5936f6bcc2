"""`--baseline` and `--fail-if`: changes, whether they may be chance, and failing conditions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from reporting import compare
from reporting.comparison import baseline, changes
from reporting.comparison.changes import BaselineComparison, Condition
from reporting.comparison.summary import CompareOptions, groups
from reporting.runs import find
from reporting.statistics.intervals import Mean
from reporting.views import files
from runner.common.errors import HydromelError


def sides(folder: Path) -> baseline.Sides:
    result = [item.run for item in find.scan(folder) if item.run]
    return baseline.sides_of_groups(groups(result, CompareOptions(None, 0.95, 1.0)), result)


def since(now: Path, then: Path, *texts: str) -> BaselineComparison:
    return changes.compare("then", sides(now), sides(then), [changes.parse(text) for text in texts], 0.95)


@pytest.fixture
def write(tmp_path: Path, write_run: Any) -> Any:
    """Write runs of a strategy below `where`, one for each F1, from seed 1."""

    def make(where: str, values: list[float], name: str = "packed", **change: Any) -> Path:
        for seed, f1 in enumerate(values, start=1):
            dotted = {key.replace("__", "."): value for key, value in change.items()}
            write_run(tmp_path / where / f"{name}{seed}", name, seed, f1=f1, change=dotted)
        return tmp_path / where

    return make


@pytest.fixture(autouse=True)
def _without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "plots", lambda group, png: [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test/f1 < -1.0", ("test/f1", True, -1.0, False)),
        ("speed<-5%", ("speed/real_tokens_per_s", True, -5.0, True)),
        ("  memory  >  .5e2 % ", ("memory/peak_bytes", False, 50.0, True)),
        ("test/perplexity > 0", ("test/perplexity", False, 0.0, False)),
        ("seconds/total > +10", ("seconds/total", False, 10.0, False)),
    ],
)
def test_grammar(text: str, expected: tuple[object, ...]) -> None:
    result = changes.parse(text)
    assert (result.figure, result.below, result.bound, result.percent) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not FIGURE < BOUND"),
        ("test/f1", "is not FIGURE < BOUND"),
        ("test/f1 <= -1", "is not FIGURE < BOUND"),
        ("test/f1 < -1 points", "is not FIGURE < BOUND"),
        ("test/f1 < nan", "is not FIGURE < BOUND"),
        ("test f1 < -1", "is not FIGURE < BOUND"),
        ("sped < -5%", "figure 'sped' is unknown (--fail-if 'sped < -5%'); did you mean 'speed'?"),
        ("tets/f1 < -1", "did you mean 'test'?"),
        ("test < -1", "figure 'test' is unknown"),
        ("test/f1 < 1", "with < it must be 0 or below"),
        ("memory > -1%", "with > it must be 0 or above"),
    ],
)
def test_typos_are_one_line_before_anything_is_read(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HydromelError) as error:
        changes.parse(text)
    assert message in str(error.value)
    assert compare.main([str(tmp_path), "--baseline", "x", "--fail-if", text]) == 1
    assert message in (shown := capsys.readouterr().err)
    assert shown.count("\n") == 1


def test_changes_are_paired_by_seed(write: Any) -> None:
    then, now = write("then", [40.0, 42.0, 44.0]), write("now", [39.0, 41.5, 42.0, 99.0])
    result = since(now, then)
    change = result.changes[0]
    assert [item.figure for item in result.changes] == ["test/f1", "speed/real_tokens_per_s", "memory/peak_bytes"]
    assert (change.before, change.now, change.difference.n) == (42.0, pytest.approx(122.5 / 3), 3)
    low, high = scipy.stats.t.interval(0.95, 2, -3.5 / 3, scipy.stats.sem([-1.0, -0.5, -2.0]))
    assert change.difference.mean == pytest.approx(-3.5 / 3)
    assert (change.difference.low, change.difference.high) == (pytest.approx(low), pytest.approx(high))
    assert change.percent is not None
    assert change.percent.mean == pytest.approx(100 * -3.5 / 3 / 42)


@pytest.mark.parametrize(
    ("values", "text", "failed"),
    [
        ([38.0, 40.1, 42.0], "test/f1 < -1.0", True),
        ([39.9, 41.7, 43.9], "test/f1 < -1.0", False),  # certainly lower, but by less than the bound
        ([30.0, 42.0, 44.1], "test/f1 < -1.0", False),  # lower by more, but it may be chance
        ([38.0, 40.1, 42.0], "test/f1 < -5%", False),
        ([38.0, 40.1, 42.0], "test/f1 < -4%", True),
        ([38.0, 40.1, 42.0], "test/f1 > 1.0", False),
        ([42.0, 44.1, 46.0], "test/f1 > 1.0", True),
    ],
)
def test_fails_beyond_the_bound_and_not_by_chance(write: Any, values: list[float], text: str, failed: bool) -> None:
    (judged,) = since(write("now", values), write("then", [40.0, 42.0, 44.0]), text).judged
    assert judged.failed is failed, judged.says
    assert judged.says.startswith(f"{text}: ")


def test_one_run_each_is_judged_by_the_bound_alone(write: Any) -> None:
    (judged,) = since(write("now", [38.0]), write("then", [40.0]), "test/f1 < -1").judged
    assert judged.failed
    assert "failed by its bound alone (one run each, so no interval)" in judged.says


@pytest.mark.parametrize(("n_wrong", "failed"), [(3, False), (60, True)])
def test_one_run_each_with_examples_asks_the_bootstrap(
    tmp_path: Path, write_run: Any, n_wrong: int, failed: bool
) -> None:
    right = {"then": np.ones(100, dtype=int), "now": np.ones(100, dtype=int)}
    right["now"][:n_wrong] = 0
    right["then"][99 - n_wrong // 2 :] = 0  # and some that it alone gets right
    for name, item in right.items():
        accuracy = float(item.sum())
        change = {"quality.metric": "accuracy", "metrics.test.accuracy": accuracy}
        folder = write_run(tmp_path / name / "a", "packed", 1, change=change)
        np.savez(
            folder / "outcomes.npz",
            split=np.array(["test"]),
            numerator=100 * item,
            denominator=np.ones(100, dtype=int),
            targets=np.ones(100, dtype=int),
            f=np.array(["identity"]),
        )
    result = since(tmp_path / "now", tmp_path / "then", "test/accuracy < -0.1")
    assert result.changes[0].difference.low is None
    assert result.changes[0].on_examples is not None
    assert result.judged[0].failed is failed, result.judged[0].says
    (tmp_path / "then" / "a" / "outcomes.npz").write_bytes(b"")
    damaged = since(tmp_path / "now", tmp_path / "then")
    assert damaged.changes[0].on_examples is None
    assert "then/a/outcomes.npz is damaged" in damaged.unmatched[0]


def test_many_strategies_share_the_error(write: Any) -> None:
    for name in ("packed", "padmask", "bucketed", "size1"):
        write("then", [40.0, 42.0, 44.0], name)
        write("now", [39.0, 41.0, 43.4], name)
    folder = write("now", [])
    result = since(folder, folder.parent / "then", "test/f1 < -0.5")
    assert result.level == pytest.approx(1 - 0.05 / 4)
    assert [item.failed for item in result.judged] == [False] * 4
    alone = since(write("now1", [39.0, 41.0, 43.4]), write("then1", [40.0, 42.0, 44.0]), "test/f1 < -0.5")
    assert alone.judged[0].failed


def test_what_is_not_in_both_never_passes(write: Any) -> None:
    then = write("then", [40.0])
    now = write("now", [40.0])
    write("now", [40.0], "padmask")
    with pytest.raises(HydromelError, match=r"padmask \(tag · .*\) is not in the baseline"):
        since(now, then, "test/f1 < -1")
    with pytest.raises(HydromelError, match=r"padmask \(tag · .*\) is not in these runs"):
        since(then, now, "test/f1 < -1")
    assert since(now, then).unmatched == ["padmask (tag · wnut17 · word · rnn) is not in the baseline"]


@pytest.mark.parametrize(
    ("change", "text", "message"),
    [
        ({"provenance__comparison_hash": "other"}, "test/f1 < -1", "is not in the baseline"),
        ({"provenance__data_fingerprint": "other"}, "test/f1 < -1", "is not in the baseline"),
        ({"quality__metric": "accuracy"}, "test/f1 < -1", "is not in the baseline"),
        ({"provenance__host": "two"}, "speed < -5%", "on other machines: two cpu Xeon 2; the baseline: one cpu"),
        ({"seed": 7}, "test/f1 < -1", "has no seed in common"),
        ({"turn": 7}, "speed < -1", "has no seed and turn in common"),
        ({}, "test/f2 < -1", "test/f2 of packed (tag · wnut17 · word · rnn) is not recorded in these runs; did you"),
        ({"memory": None}, "memory > 1%", "memory/peak_bytes of packed (tag · wnut17 · word · rnn) is not recorded"),
    ],
)
def test_what_cannot_be_judged_never_passes(write: Any, change: dict[str, Any], text: str, message: str) -> None:
    with pytest.raises(HydromelError) as error:
        since(write("now", [40.0], **change), write("then", [40.0]), text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_quality_is_judged_across_machines_and_speed_is_told_to_be_left_out(write: Any) -> None:
    now = write("now", [30.0, 32.0, 34.0], provenance__host="two")
    result = since(now, write("then", [40.0, 42.0, 44.0]), "test/f1 < -1")
    assert result.judged[0].failed
    assert [change.figure for change in result.changes] == ["test/f1"]
    assert "speed/real_tokens_per_s of packed" in result.unmatched[0]


def test_other_options_of_batching_are_another_strategy(write: Any) -> None:
    now, then = write("now", [40.0]), write("then", [40.0])
    (now / "packed1" / "resolved.yaml").write_text("batching:\n  name: packed\n  batch_size: 64\n")
    with pytest.raises(HydromelError, match="has other options: batch_size=64, was none"):
        since(now, then, "test/f1 < -1")


def test_command_with_runs_and_with_a_report_as_baseline(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    then, now = write("then", [40.0, 42.0, 44.0]), write("now", [38.0, 40.1, 42.0])
    out = ["--out", str(tmp_path / "out"), "--no-mlflow"]
    assert compare.main([str(then), *out]) == 0
    capsys.readouterr()
    report = tmp_path / "then.json"
    report.write_bytes((tmp_path / "out" / "report.json").read_bytes())
    for earlier in (str(then), str(report)):
        failing = ["--baseline", earlier, "--fail-if", "test/f1 < -1.0", "--fail-if", "speed < -5%"]
        assert compare.main([str(now), *out, *failing]) == 1
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert line.startswith("test/f1 < -1.0: failed: packed (tag · wnut17 · word · rnn) 42 before, 40.03 now: -1.9")
        assert "speed < -5%: holds: packed" in " ".join(shown.out.split())
        for name in ("report.md", "index.html"):
            text = (tmp_path / "out" / name).read_text()
            assert "-1.967" in text
            assert "FAILED: test/f1" in text
        (change, *_) = json.loads((tmp_path / "out" / "report.json").read_text())["history"]["changes"]
        assert change["difference"]["mean"] == pytest.approx(-5.9 / 3)
        assert compare.main([str(now), *out, "--baseline", earlier, "--fail-if", "test/f1 < -2.0"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("content", ["", "[]", '{"groups": [{}]}', '{"groups": [{"strategies": 3}]}', '{"groups": 1}'])
def test_a_baseline_that_is_no_report(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = tmp_path / "then.json"
    path.write_text(content)
    assert compare.main([str(write("now", [40.0])), "--baseline", str(path), "--no-mlflow"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: --baseline {path} ")
    assert shown.count("\n") == 1


def test_conditions_need_a_baseline(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(write("now", [40.0])), "--fail-if", "test/f1 < -1"]) == 1
    assert "--fail-if needs --baseline" in capsys.readouterr().err


def test_certain_is_on_the_side_of_the_condition() -> None:
    falls = Condition("", "test/f1", True, 0.0, False)
    assert falls.certain(Mean(3, -1.0, -2.0, -0.1))
    assert not falls.certain(Mean(3, -1.0, -2.0, 0.0))
    assert not falls.certain(Mean(3, 1.0, 0.1, 2.0))


def test_csv_has_a_row_a_run(sweep: Path, write_run: Any, tmp_path: Path) -> None:
    write_run(sweep / "night" / "t2", "packed", 1, change={"turn": 2, "provenance.comparison_hash": "hash2"})
    path = tmp_path / "new" / "runs.csv"
    assert compare.main(["night", "--runs", str(sweep), "--csv", str(path), "--no-mlflow", "--out", str(tmp_path)]) == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 16
    packed = next(row for row in rows if (row["strategy"], row["seed"], row["turn"]) == ("packed", "2", "1"))
    assert (packed["test/f1"], packed["speed/real_tokens_per_s"], packed["host"]) == ("42.0", "11440.0", "one")
    assert packed["settings.batching.name"] == "packed"
    assert {row["settings.config"] for row in rows} == {"hash", "hash2"}
