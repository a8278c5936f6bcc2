"""Outcomes of examples: their sums give the run's own metrics, in the file's order, under every strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.common import run_schema
from runner.tracking.fields import artifacts
from tasks.metrics.metrics import blocks, loss_outcomes
from tasks.spans.table import all_tags
from tests.helpers.composed import label_files, run, tag_files
from tests.helpers.metrics import span_metric
from tests.helpers.target_batches import ids, tagged

SMALL = ("embedding.size=4", "train.epochs=1", "optimizer.lr=0.01", "baselines=false", "dtype=float64")
RNN = ("encoder=rnn", "encoder.hidden=4", "batching.batch_size=8")
LM = ("task=lm", "dataset=text", *(f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")))


def read(folder: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(folder / run_schema.OUTCOMES) as file:
        result = dict(file)
    assert result.pop("split").tolist() == ["test"]
    return result


def figure_of(result: dict[str, npt.NDArray[Any]]) -> float:
    ratio = float(result["numerator"].sum()) / int(result["denominator"].sum())
    return {"identity": ratio, "exp": math.exp(min(ratio, 700))}[str(result["f"][0])]


def text_files(folder: Path) -> list[str]:
    """Write a small text with a blank line, and return the overrides that read it."""
    label_files(folder)
    for split in ("train", "valid", "test"):
        path = folder / f"{split}.txt"
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{line[2:]}\n" for line in lines), encoding="utf-8")
    return [*LM, f"data_dir={folder}", "encoder=lstm", "encoder.hidden=4"]


@pytest.mark.parametrize(
    ("files", "options", "metric", "n"),
    [
        (label_files, RNN, "accuracy", 40),
        (tag_files, RNN, "f1", 40),
        (tag_files, (*RNN, "task.train_scheme=IOBES"), "f1", 40),
        (tag_files, (*RNN, "task.quality=accuracy", "predictions=false"), "accuracy", 40),
        (text_files, ("predictions=false",), "perplexity", 40),
        (text_files, ("task.unit=stream", "batching=stream", "batching.batch_size=3"), "perplexity", None),
    ],
    ids=["classify", "spans", "iobes", "accuracy", "lines", "stream"],
)
def test_sums_give_the_main_metric(
    tmp_path: Path,
    files: Callable[[Path], list[str]],
    options: tuple[str, ...],
    metric: str,
    n: int | None,
) -> None:
    result = run(tmp_path / "run", *files(tmp_path), *SMALL, *options)
    actual = read(tmp_path / "run")
    assert result["quality"]["metric"] == metric
    assert figure_of(actual) == pytest.approx(result["metrics"]["test"][metric], rel=1e-14)
    lengths = {len(actual[name]) for name in ("numerator", "denominator", "targets")}
    if n is not None:
        assert lengths == {n}
        return
    tokens = actual["targets"]
    assert lengths == {round(tokens.sum() ** 0.5)}
    assert tokens.max() - tokens.min() <= 1


def test_order_is_that_of_the_file_under_every_strategy(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), *SMALL, "encoder=rnn", "encoder.hidden=4", "train.max_updates=9"]
    written = {}
    for strategy in ("padmask", "packed"):  # the same updates, so the same predictions
        run(tmp_path / strategy, *options, f"batching={strategy}", "batching.batch_size=8")
        written[strategy] = (tmp_path / strategy / run_schema.OUTCOMES).read_bytes()
    assert written["padmask"] == written["packed"]
    actual = read(tmp_path / "packed")
    sentences = (tmp_path / "test.conll").read_text(encoding="utf-8").strip("\n").split("\n\n")
    assert actual["targets"].tolist() == [sentence.count("\tB-") for sentence in sentences]
    output = (tmp_path / "packed" / run_schema.PREDICTIONS / "test.conll").read_text(encoding="utf-8").strip("\n")
    predicted = [[line.split("\t")[3] for line in item.split("\n")] for item in output.split("\n\n")]
    assert (actual["denominator"] - actual["targets"]).tolist() == [
        sum(tag.startswith("B-") for tag in item) for item in predicted
    ]
    assert 0 < actual["numerator"].sum() < 200 * actual["targets"].sum()
    assert (tmp_path / "packed" / run_schema.OUTCOMES, None) in artifacts(tmp_path / "packed"), "MLflow gets it"


def test_a_metric_that_is_no_sum_has_no_outcomes(tmp_path: Path) -> None:
    run(tmp_path / "run", *label_files(tmp_path), *SMALL, *RNN, "task.quality=macro_f1")
    assert not (tmp_path / "run" / run_schema.OUTCOMES).exists()


TAGS = all_tags(("LOC", "PER"), "IOB1")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_spans_of_each_row_equal_those_of_the_row_alone(data: st.DataObject) -> None:
    pair = st.tuples(*[st.integers(0, len(TAGS) - 1)] * 2)
    rows = data.draw(st.lists(st.lists(pair, max_size=6), min_size=1, max_size=5))
    predictions = np.array([p for row in rows for _, p in row], dtype=np.int64)
    actual = span_metric(TAGS, "IOB1").outcomes("f1", predictions, whole(rows))
    assert actual is not None
    for number, row in enumerate(rows):
        metric = span_metric(TAGS, "IOB1")
        metric.update(ids([p for _, p in row]), whole([row]))
        figures = metric.compute()
        assert sum(figures["per_type"]["support"].to_pylist()) == actual.targets[number]
        assert figures["f1"] == pytest.approx(actual.numerator[number] / max(1, actual.denominator[number]))


def whole(rows: list[list[tuple[int, int]]]) -> Any:
    return tagged([[gold for gold, _ in row] for row in rows])


@given(st.integers(1, 5000))
def test_blocks_split_the_text_into_nearly_equal_parts(n_tokens: int) -> None:
    lengths = blocks(n_tokens)
    assert lengths.sum() == n_tokens
    assert lengths.max() - lengths.min() <= 1
    assert abs(len(lengths) - lengths.max()) <= 2


def test_losses_of_rows_without_tokens_are_zero() -> None:
    actual = loss_outcomes(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 0, 1]), "identity")
    assert actual.numerator.tolist() == [0.0, 3.0, 0.0, 4.0]
