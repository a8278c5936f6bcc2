"""The runs that a name stands for, and the treatment of unfinished and damaged ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reporting import compare
from reporting.runs import find
from reporting.runs.run import FoundRun, read
from runner.common.errors import HydromelError


def found_names(result: list[FoundRun]) -> list[str]:
    return sorted(item.folder.name for item in result if item.run)


@pytest.mark.parametrize("what", ["night", "compare_batching"])
def test_sweeps_and_experiments_by_name(sweep: Path, write_run: Any, what: str) -> None:
    write_run(sweep / "apart", "packed", 9, change={"sweep_id": "other", "experiment": None})
    assert len(found_names(find.find([what], sweep))) == 15


def test_a_sweep_id_finds_runs_outside_its_folder(sweep: Path, write_run: Any) -> None:
    write_run(sweep / "elsewhere" / "more", "packed", 4)
    assert len(found_names(find.find(["night"], sweep))) == 16


def test_folders_and_everything(sweep: Path) -> None:
    assert found_names(find.find([str(sweep / "night" / "packed-1")], sweep)) == ["packed-1"]
    assert len(found_names(find.find([], sweep))) == 15


def test_copies_of_a_run_count_once(sweep: Path) -> None:
    shutil.copytree(sweep / "night" / "packed-1", sweep / "copy")
    assert len(found_names(find.find(["night", str(sweep)], sweep))) == 15


def test_unknown_name_says_what_is_there(sweep: Path) -> None:
    with pytest.raises(HydromelError, match=r"no run fits 'compare_batchin'.*did you mean 'compare_batching'\?.*night"):
        find.find(["compare_batchin"], sweep)


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--runs", str(tmp_path / "runs")]) == 1
    assert capsys.readouterr().err == (
        f"error: no run below {tmp_path / 'runs'}/; make one with `hydromel`, or name another folder with --runs\n"
    )


def test_only_unfinished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": "a", "created": 1.0, "status": "failed"}))
    assert compare.main(["--runs", str(tmp_path / "runs")]) == 1
    assert f"no finished run to compare. Not finished, so left out: {folder} (failed)." in capsys.readouterr().err


def damage(sweep: Path, name: str, path: str, text: str) -> str:
    (sweep / "night" / name / path).write_text(text)
    (item,) = [item for item in find.find(["night"], sweep) if item.problem]
    assert item.run is None
    assert len(found_names(find.find(["night"], sweep))) == 14
    assert item.problem is not None
    assert "\n" not in item.problem
    return item.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"run_id": ', "is damaged: it is not JSON"),
        ("", "is damaged: it is not JSON"),
        ("[1]", "is damaged: [1] should be an object"),
        ("{}", "is damaged: it has no 'run_id'"),
    ],
)
def test_damaged_result(sweep: Path, text: str, problem: str) -> None:
    output = damage(sweep, "packed-2", "result.json", text)
    assert problem in output
    assert str(sweep / "night" / "packed-2" / "result.json") in output


@pytest.mark.parametrize(("key", "value"), [("seed", "1"), ("seed", True), ("batching", None), ("updates.digest", 3)])
def test_result_with_a_wrong_value(sweep: Path, write_run: Any, key: str, value: object) -> None:
    write_run(sweep / "night" / "bad", "packed", 8, change={key: value})
    (item,) = [item for item in find.find(["night"], sweep) if item.problem]
    assert f"is damaged: {key}={value!r} should be a valid" in str(item.problem)


def test_damaged_metrics_name_the_line(sweep: Path) -> None:
    output = damage(
        sweep, "packed-2", "metrics.jsonl", '{"step": 1, "metrics": {}}\n{"step": 2, "metrics": {"valid/f1": 3}}\n'
    )
    assert "metrics.jsonl:2 is damaged" in output


def test_evaluations_written_again_after_a_resume_replace_the_old(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "a", "packed", 1, valid=[(1.0, 10.0), (2.0, 20.0), (3.0, None), (4.0, 30.0)])
    more = {"time": 9.0, "step": 104, "epoch": 2, "metrics": {"valid/f1": 21.0, "train/seconds": 2.5}}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(more) + "\n")
    run = read(folder).run
    assert run is not None
    assert [(evaluation.step, evaluation.seconds, evaluation.quality) for evaluation in run.evaluations] == [
        (52, 1.0, 10.0),
        (104, 2.5, 21.0),
    ]


def test_unfinished_and_damaged_runs_are_told_and_the_others_compared(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "night" / "packed-3" / "result.json").unlink()
    run = json.loads((sweep / "night" / "packed-3" / "run.json").read_text())
    (sweep / "night" / "packed-3" / "run.json").write_text(json.dumps(run | {"status": "interrupted"}))
    (sweep / "night" / "size1-3" / "result.json").write_text("{")
    assert compare.main(["night", "--runs", str(sweep), "--out", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "packed-3 (interrupted)." in shown
    assert "size1-3/result.json is damaged: it is not JSON" in shown
    for name in ("report.md", "index.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "packed-3 (interrupted)" in text
        assert "size1-3/result.json is damaged: it is not JSON" in text


def test_mlflow_needs_to_know_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["mlflow:demo"]) == 1
    assert "--tracking-uri is missing" in capsys.readouterr().err


def test_bad_options_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--confidence", "95"], ["--target", "nan"], ["--target", "much"]):
        assert compare.main(options) == 1
        assert capsys.readouterr().err.startswith(f"error: argument {options[0]}")


def test_neither_torch_nor_mlflow_nor_matplotlib_is_imported_for_help() -> None:
    code = (
        "import sys\nfrom reporting import compare\n"
        "try:\n    compare.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'mlflow', 'matplotlib', 'scipy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hydromel-compare" in done.stdout
