"""Plots of one run: which are drawn, and the values they show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reporting.compare import main as compare_main
from reporting.plots.run import (
    KINDS,
    MOST_LABELS,
    RunPlots,
    error_kinds,
    f1_by_class,
    figures,
    likelihood,
    reliability,
)
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.tables.detail import SCORES, pair_table, set_apart
from tasks.metrics.metrics import by_name
from tasks.spans.errors import KINDS as KINDS_OF_ERRORS

PNG = b"\x89PNG"
ERRORS: dict[str, Any] = {
    "counts": {"right": 3, "boundary": 1, "type": 0, "both": 0, "missed": 2, "spurious": 4},
    "per_type": [
        {"name": "LOC", "right": 1, "boundary": 0, "type": 0, "both": 0, "missed": 0, "spurious": 0},
        {"name": "PER", "right": 2, "boundary": 1, "type": 0, "both": 0, "missed": 2, "spurious": 4},
    ],
}
CALIBRATION = {
    "ece": 12.5,
    "bins": [
        {"from": 0.4, "to": 0.5, "count": 10, "confidence": 45.0, "accuracy": 30.0},
        {"from": 0.9, "to": 1.0, "count": 1000, "confidence": 98.0, "accuracy": 88.0},
    ],
}


def result(**tables: Any) -> dict[str, Any]:
    phases = ("startup", "data", "forward", "backward", "optimizer", "evaluation", "tracking")
    return {
        "run_id": "a",
        "name": "a-run",
        **dict.fromkeys(("task", "dataset", "embedding", "encoder", "batching"), "x"),
        "seed": 1,
        "quality": {"metric": "f1", "unit": "%", "higher_is_better": True},
        "seconds": dict.fromkeys(phases, 1.0),
        "metrics": {"test": tables},
        "updates": {"count": 1, "digest": ""},
        "provenance": {"comparison_hash": ""},
    }


def spans() -> dict[str, Any]:
    return result(
        per_type=[
            {"name": name, "precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 3} for name in ("LOC", "PER")
        ],
        errors=ERRORS,
        type_confusion=[
            {"gold": gold, "predicted": predicted, "count": count}
            for gold, predicted, count in (
                ("LOC", "LOC", 1),
                ("PER", "PER", 3),
                ("PER", "(none)", 2),
                ("(none)", "PER", 4),
            )
        ],
        calibration=CALIBRATION,
        calibration_in_spans={"ece": 0.0, "bins": []},
    )


def test_each_table_that_is_there_is_drawn(tmp_path: Path) -> None:
    (tmp_path / run_schema.RESULT).write_text(json.dumps(spans()), encoding="utf-8")
    drawn = RunPlots().draw(tmp_path)
    assert {path.stem for path in drawn} == {
        "curves",
        "seconds",
        "f1_by_class",
        "errors",
        "type_confusion",
        "calibration",
    }
    assert all(path.read_bytes().startswith(PNG) for path in drawn)
    assert set(figures(result(), [], tmp_path)) == {"curves", "seconds"}


def test_curves_have_gaps_and_end_at_100() -> None:
    lines = []
    for step, f1 in ((20, None), (40, 99.0), (60, None), (80, 100.0)):
        metrics = {"train/loss": 1.0, "train/gradient_norm": 2.0, "train/gradient_norm_max": 3.0, "train/lr": 0.1}
        metrics |= {"valid/loss": 0.5, "valid/f1": f1}
        lines.append({"time": 0.0, "step": step, "epoch": 1, "metrics": metrics})
    drawn = figures(spans(), lines, Path())
    for figure in drawn.values():
        assert "a-run" in figure.get_suptitle() + figure.axes[0].get_title()
    panels = {axis.get_ylabel(): axis for axis in drawn["curves"].axes}
    assert list(panels) == ["loss", "valid f1, %", "norm of the gradient", "learning rate"]
    assert [line.get_label() for line in panels["loss"].lines] == ["train", "valid"]
    assert [line.get_label() for line in panels["norm of the gradient"].lines] == ["mean", "maximum"]
    quality = panels["valid f1, %"]
    assert np.isnan(quality.lines[0].get_ydata()).tolist() == [True, False, True, False]
    assert quality.get_ylim()[1] == 100


def test_undefined_f1_is_a_gap_and_the_axis_ends_at_100() -> None:
    rows = [
        {"name": name, "precision": f1, "recall": f1, "f1": f1, "support": support}
        for name, f1, support in (("LOC", 100.0, 3), ("PER", 0.0, 2), ("EVENT", 0.0, 0), ("ORG", 0.0, 0))
    ]
    (axis,) = f1_by_class(pa.Table.from_pylist(rows, schema=SCORES), "test", {"LOC", "EVENT"}).axes
    assert axis.get_xlim() == (0, 100)
    widths = dict(zip((label.get_text() for label in axis.get_yticklabels()), axis.patches, strict=True))
    assert {name: bar.get_width() for name, bar in widths.items() if name != "ORG"} == {
        "LOC": 100.0,
        "PER": 0.0,
        "EVENT": 0.0,
    }
    assert math.isnan(widths["ORG"].get_width())
    texts = [text.get_text() for text in axis.texts]
    assert sorted(texts) == ["0.0  (n=0)", "0.0  (n=2)", "100.0  (n=3)", "undefined  (n=0)"]


def test_the_colours_of_a_confusion_have_a_legend() -> None:
    _, bar = figures(spans(), [], Path())["type_confusion"].axes
    assert bar.get_ylabel() == "share of the gold label, % (in the cells: counts)"


def test_of_many_labels_a_part_is_drawn_that_the_title_names(tmp_path: Path) -> None:
    """Labels are `l0`, `l1`, ...; `l<n>` is n times right and, from 900 on, once predicted as `l0`."""
    many = [f"l{number}" for number in range(1000)]
    gold = np.repeat(np.arange(1000), np.arange(1000))
    predicted = np.where((gold >= 900) & (np.diff(gold, prepend=0) > 0), 0, gold)
    tables = {"confusion": pair_table(many, gold, predicted)}
    counts = (np.bincount(ids, minlength=1000) for ids in (gold[gold == predicted], predicted, gold))
    tables["per_class"] = by_name(many, *counts)
    tables["errors"] = {
        "counts": ERRORS["counts"],
        "per_type": pa.table([many, *[[number % 7 for number in range(1000)]] * 6], names=["name", *KINDS]),
    }
    record = json.loads(json.dumps(set_apart(tables, tmp_path, "test")))
    assert record["confusion"] == {"file": "tables/test_confusion.parquet", "rows": 1099}
    drawn = figures(result(**record), [], tmp_path)
    titles = {name: drawn[name].axes[0] for name in ("confusion", "f1_by_class", "errors")}
    assert titles["confusion"].get_title() == f"test: the {MOST_LABELS} of 1,000 labels with the most errors"
    assert titles["f1_by_class"].get_xlabel() == f"F1 on test: the {MOST_LABELS} of 1,000 most frequent, %"
    assert titles["errors"].get_xlabel().startswith(f"spans of test: the {MOST_LABELS} of 1,000 most frequent types: ")
    labels = [label.get_text() for label in titles["confusion"].get_yticklabels()]
    assert (len(labels), labels[0]) == (MOST_LABELS, "l0")
    assert [label.get_text() for label in titles["f1_by_class"].get_yticklabels()][-1] == "l999"


def test_labels_of_any_length_are_cut(tmp_path: Path) -> None:
    """An image that fits a label of 30,000 characters takes gigabytes."""
    labels = ["P" * 30_000, "P" * 30_000 + "Q"]
    tables = {
        "confusion": [{"gold": gold, "predicted": label, "count": 1} for gold in labels for label in labels],
        "per_class": [{"name": label, "precision": 1.0, "recall": 1.0, "f1": 50.0, "support": 3} for label in labels],
    }
    record = result(**tables) | {"name": labels[0]}
    (tmp_path / run_schema.RESULT).write_text(json.dumps(record), encoding="utf-8")
    drawn = RunPlots().draw(tmp_path)
    assert {path.stem for path in drawn} == {"curves", "seconds", "confusion", "f1_by_class"}
    assert all(int.from_bytes(path.read_bytes()[16:20]) < 5000 for path in drawn), "pixels of width"


def test_records_that_cannot_be_drawn_are_one_line(tmp_path: Path) -> None:
    record = result() | {"seconds": {"forward": 1e308, "backward": 1e308}}
    (tmp_path / run_schema.RESULT).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(HydromelError, match=r"^\w+: "):
        RunPlots().draw(tmp_path)


def test_a_table_that_is_gone_is_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = result(confusion={"file": "tables/test_confusion.parquet", "rows": 5})
    assert "confusion" not in figures(gone, [], tmp_path)
    assert "test_confusion.parquet: cannot be read (No such file" in caplog.text


def test_tables_of_an_earlier_version_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = result(confusion={"A": {"A": 3}}, per_class={"A": {"f1": 1.0}})
    assert {*figures(old, [], tmp_path)} == {"curves", "seconds"}  # type: ignore[arg-type]
    assert caplog.messages == [
        "warning: not drawn: confusion, per_class of result.json are damaged or of an earlier version; train again to "
        "draw them"
    ]


def test_bars_of_errors_add_up_to_all_spans() -> None:
    assert tuple(KINDS) == KINDS_OF_ERRORS
    axis = error_kinds(ERRORS["counts"], pa.Table.from_pylist(ERRORS["per_type"]), "test").axes[0]
    ends = {patch.get_x() + patch.get_width() for patch in axis.patches}
    assert max(ends) == 9  # of PER, which is on top
    assert [label.get_text() for label in axis.get_yticklabels()] == ["LOC", "PER"]
    (legend,) = axis.figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["right 3", "boundary 1"]


def test_reliability_shows_the_bins() -> None:
    figure = reliability({"all predictions": CALIBRATION, "predictions in spans": CALIBRATION}, "test")
    top = figure.axes[0]
    assert [patch.get_height() for patch in top.patches] == pytest.approx([30.0, 88.0])
    assert top.get_title() == "all predictions of test, ECE 12.5 %"
    assert len(figure.axes) == 4


def test_likelihood_shows_bins_and_what_stands_apart() -> None:
    """Perplexities are points, shares of tokens bars; an infinite value (null in JSON) has no point."""
    bins = [(0, 0, 10, None), (1, 9, 30, 900.0), (1000, 9999, 40, 20.0)]
    frequency = [dict(zip(("from", "to", "tokens", "perplexity"), item, strict=True)) | {"nll": 1.0} for item in bins]
    metrics = {
        "perplexity": 60.0,
        "by_position": {"bins": [{"from": 1, "to": 1, "tokens": 90, "nll": 4.1, "perplexity": 60.0}]},
        "by_frequency": {"bins": frequency, "apart": {"<eos>": {"tokens": 20, "nll": 1.4, "perplexity": 4.0}}},
    }
    figure = likelihood(metrics, "test")
    top, bottom = figure.axes[1], figure.axes[3]
    assert [list(line.get_ydata()) for line in top.lines][1:] == [pytest.approx([math.nan, 900, 20], nan_ok=True), [4]]
    assert {text.get_text() for text in top.texts} == {"900", "20", "4"}
    assert [label.get_text() for label in bottom.get_xticklabels()] == ["0", "1–9", "1k–10k", "<eos>"]
    assert [patch.get_height() for patch in bottom.patches] == [10.0, 30.0, 40.0, 20.0]
    assert set(figures(result(**metrics), [], Path())) == {"curves", "seconds", "likelihood"}


def test_compare_draws_the_plots_of_runs_that_were_made_without(sweep: Path, tmp_path: Path) -> None:
    folder = min(path.parent for path in sweep.rglob(run_schema.RESULT))
    arguments = [str(folder), "--run-plots", "--no-mlflow", "--out", str(tmp_path / "report")]
    assert compare_main(arguments) == 0
    assert (folder / run_schema.PLOTS / "curves.png").stat().st_size > 1000
    (folder / run_schema.PLOTS / "curves.png").unlink()
    (folder / run_schema.PLOTS / "curves.png").symlink_to(tmp_path / "victim")
    assert compare_main(arguments) == 1
    assert not (tmp_path / "victim").exists()
