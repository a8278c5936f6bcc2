"""Predictions for strategies are shown with measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reporting import compare


def said(name: str, speed: float, peak: float, batch_size: int | None = 20) -> dict[str, Any]:
    return {
        "name": name,
        "batch_size": batch_size,
        "predicted_real_tokens_per_s": speed,
        "predicted_peak_bytes": peak,
    }


def sized(folder: Path, batch_size: int | None) -> None:
    config = yaml.safe_load((folder / "resolved.yaml").read_text())
    config["batching"]["batch_size"] = batch_size
    (folder / "resolved.yaml").write_text(yaml.safe_dump(config))


OTHER = {"choices": {"task": "lm", "dataset": "d", "embedding": "e", "encoder": "x"}}


@pytest.fixture
def runs(tmp_path: Path, write_run: Any) -> Path:
    """Two runs of padmask (8,000 and 8,160 tokens/s), one of packed, one of auto that chose packed."""
    advice = {
        "chosen": "packed",
        "batch_size": 20,
        "candidates": [said("padmask", 9090.0, 2**29), said("packed", 11000.0, 2**30), said("bucketed", 1.0, 2.0)],
    }
    root = tmp_path / "runs"
    for name, batching, seed, change in (
        ("a", "padmask", 0, {}),
        ("b", "padmask", 1, {}),
        ("c", "packed", 0, {}),
        ("d", "auto", 0, {"advice": advice, "speed.real_tokens_per_s": 9000.0}),
    ):
        sized(write_run(root / name, batching, seed, change=change), 20)
    return root


def report(runs: Path, *arguments: str) -> list[dict[str, Any]]:
    out = runs.parent / "out"
    assert compare.main(["--runs", str(runs), "--out", str(out), "--no-mlflow", *arguments]) == 0
    (group,) = json.loads((out / "report.json").read_text())["groups"]
    advice: list[dict[str, Any]] = group["advice"]
    return advice


def test_predictions_are_scored_by_the_runs_that_were_made(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = {item["name"]: item for item in report(runs)}
    assert by_name["padmask"]["tokens_per_s"] == pytest.approx(8080)
    assert by_name["packed"]["tokens_per_s"] == pytest.approx((11000 + 9000) / 2), "the run of auto counts as well"
    assert [item["chosen"] for item in by_name.values()] == [0, 1, 0]
    assert by_name["bucketed"]["tokens_per_s"] is None
    shown = capsys.readouterr().out.split("Predicted and measured")[1]
    assert "+12" in shown  # 9,090 predicted, 8,080 measured
    assert shown.count(" predicted ") == 2  # no head is cut at 80 columns
    assert all(head in shown for head in ("speed, %", "peak, %", "bucketed"))
    markdown = (runs.parent / "out" / "report.md").read_text().split("Predicted and measured")[1]
    assert "| padmask | 20 | 9,090 | 8,080 | +12 | 512 |" in markdown


def test_a_plan_is_scored_too(runs: Path, tmp_path: Path) -> None:
    choices = {"task": "tag", "dataset": "wnut17", "embedding": "word", "encoder": "rnn"}
    plan = {"choices": choices, "planned": [{"predicted": said("padmask", 4040.0, 1.0, 20)}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    by_name = {item["name"]: item for item in report(runs, "--predicted", str(tmp_path / "plan.json"))}
    assert by_name["padmask"]["predicted_tokens_per_s"] == pytest.approx((9090 + 4040) / 2)


def test_another_batch_size_is_no_measure(tmp_path: Path, write_run: Any) -> None:
    advice = {"chosen": "packed", "batch_size": 20, "candidates": [said("padmask", 1.0, 1.0, 32)]}
    sized(write_run(tmp_path / "runs" / "a", "padmask", 0), 20)
    sized(write_run(tmp_path / "runs" / "b", "auto", 0, change={"advice": advice}), 20)
    (item,) = report(tmp_path / "runs")
    assert item["tokens_per_s"] is None


def test_without_predictions_there_is_no_table(
    tmp_path: Path, write_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "a", "padmask", 0, change={"advice": {"chosen": "packed", "candidates": [{"x": 1}]}})
    write_run(tmp_path / "runs" / "b", "packed", 0)
    assert report(tmp_path / "runs") == []
    assert "Predicted and measured" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        ("{}", "not written by hydromel-plan --json"),
        (json.dumps(OTHER | {"planned": [{"predicted": None}]}), "it holds no predictions"),
        (
            json.dumps(OTHER | {"planned": [{"predicted": said("packed", 1.0, 1.0)}]}),
            "is for lm · d · e · x, but the runs are",
        ),
    ],
)
def test_another_file_is_answered_in_one_line(
    runs: Path, tmp_path: Path, content: str | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    assert compare.main(["--runs", str(runs), "--no-mlflow", "--predicted", str(tmp_path / "plan.json")]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1
