"""Whole runs with several labels per row, and with numbers: resumed, loaded, evaluated, audited and predicted with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runner.audit.config_audit import AuditOptions, audit_config
from runner.cli.evaluate import main as evaluate
from runner.cli.predict import main as predict
from runner.config.compose import compose_strategies
from tests.helpers.composed import run

TEXTS = [f"w{n % 7} w{n % 5} w{n % 3} x{n % 2}" for n in range(60)]
LABELS = [[name for name, every in (("three", 3), ("five", 5)) if n % every == 0] for n in range(60)]
KINDS = {
    "sets": ("task=classify", "task.labels=many"),
    "numbers": ("task=regress",),
}
SMALL = ("encoder=bow", "embedding.size=8", "train.epochs=2", "optimizer.lr=0.05", "threads=1", "batching=padmask")


def data(folder: Path, kind: str) -> list[str]:
    """Write three files of JSON Lines, and return the options that name them."""
    names = ("train", "valid", "test")
    for place, name in enumerate(names):
        rows = range(60) if name == "train" else range(place, 60, 4)
        targets = [LABELS[n] if kind == "sets" else n / 8 - 3 for n in rows]
        lines = [json.dumps({"text": TEXTS[n], "label": target}) for n, target in zip(rows, targets, strict=True)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["dataset=jsonl", f"data_dir={folder}", *(f"dataset.{name}={name}.jsonl" for name in names)]


@pytest.fixture(params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, list[str]]:
    """Return the kind, the folder of a finished run, and its options."""
    kind = request.param
    options = [*KINDS[kind], *data(tmp_path, kind), *SMALL]
    run(tmp_path / "run", *options)
    return kind, tmp_path / "run", options


def test_a_run_is_resumed_evaluated_and_predicted_with(
    finished: tuple[str, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, folder, options = finished
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    figures = result["metrics"]["test"]
    stored = load_file(folder / "checkpoints" / "best.safetensors")
    if kind == "sets":
        assert result["quality"] == {"metric": "micro_f1", "unit": "%", "higher_is_better": True}
        thresholds = stored["model.head.output.thresholds"]
        by_label = {row["name"]: row for row in figures["per_class"]}
        assert [by_label[name]["threshold"] for name in ("five", "three")] == pytest.approx(thresholds.tolist())
        assert result["baselines"].keys() == {"svm"}
    else:
        assert result["quality"] == {"metric": "pearson", "unit": "", "higher_is_better": True}
        assert float(stored["model.head.output.mean"]) == pytest.approx(np.mean([n / 8 - 3 for n in range(60)]))
        assert result["baselines"].keys() == {"ridge"}
        assert result["majority"]["pearson"] == 0.0

    # One epoch, then the other: the same bits.
    run(tmp_path / "parts", *options, "train.epochs=1")
    run(tmp_path / "parts", *options)
    again = load_file(tmp_path / "parts" / "checkpoints" / "best.safetensors")
    assert all(torch.equal(stored[name], again[name]) for name in stored if name.startswith("model."))

    assert evaluate([f"run={folder}", "--json", str(tmp_path / "again.json")]) == 0
    evaluated = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
    assert _numbers(evaluated) == pytest.approx(numbers, rel=1e-4)

    output = tmp_path / "predicted.jsonl"
    arguments = ["--input", str(tmp_path / "test.jsonl"), "--output", str(output), "--field", "said", "--probabilities"]
    assert predict([f"run={folder}", *arguments]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    written = (folder / "predictions").iterdir()
    if kind == "sets":
        saved = [json.loads(line) for line in next(written).read_text(encoding="utf-8").splitlines()]
        assert [row["said"] for row in rows] == [row["predicted"] for row in saved]
        assert all(row["said_probability"].keys() == {"five", "three"} for row in rows)
    else:
        saved_numbers = [float(line.split("\t")[1]) for line in next(written).read_text().splitlines()[1:]]
        assert [row["said"] for row in rows] == pytest.approx(saved_numbers, rel=1e-5)
        assert "said_probability" not in rows[0]


def _numbers(value: Any) -> dict[str, float]:
    if isinstance(value, dict) and any(isinstance(item, float) for item in value.values()):
        return {name: item for name, item in value.items() if isinstance(item, float)}
    return next(_numbers(item) for item in value.values() if isinstance(item, dict))


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_same(kind: str, tmp_path: Path) -> None:
    given = [*KINDS[kind], *data(tmp_path, kind), "encoder=conv", "encoder.filters=5", "cache_dir=null", "threads=1"]
    configs, left_out = compose_strategies([*given, "batching=size1,padmask,packed,bucketed,unmasked"], None)
    report = audit_config(
        configs, left_out, AuditOptions(rows=8, longest=4, modes=("eval",), arithmetics=(), heat=False)
    )
    report.raise_if_failed()
    assert report.failures(controls=True)
