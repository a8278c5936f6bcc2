"""Started metrics of given labels, and the figures of a task's own metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from torch import Tensor

from runner.components.measures import Measures
from runner.interfaces import Task
from runner.ragged.batch import Batch
from runner.text.vocab import SPECIALS, Vocab
from tasks.metrics.metrics import LabelMetric, PerplexityMetric, SpanMetric
from tasks.spans.table import as_scheme


def label_metric(labels: Sequence[str]) -> LabelMetric:
    metric = LabelMetric()
    metric.start({"target": Vocab(tuple(labels))})
    return metric


def span_metric(tags: Sequence[str], scheme: str) -> SpanMetric:
    metric = SpanMetric(scheme=as_scheme(scheme), learned_scheme=as_scheme(scheme))
    metric.start({"target": Vocab(tuple(tags))})
    return metric


def perplexity_metric(per_character: bool = False) -> PerplexityMetric:
    metric = PerplexityMetric(feature="words", stream=False)
    metric.start({"target": Vocab(("a" if per_character else "word",), SPECIALS)})
    return metric


def measured(task: Task, values: Tensor, split: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
    """Return the figures and tables of the task's metric for predictions or losses of a whole split."""
    return Measures.of(task).of_split({task.metric.input_kind: values}, split, vocabs)


def by_name(table: pa.Table | list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of a table by their name."""
    rows = table if isinstance(table, list) else table.to_pylist()
    return {row["name"]: {key: value for key, value in row.items() if key != "name"} for row in rows}


def matrix(pairs: pa.Table | list[dict[str, Any]], names: Sequence[str]) -> list[list[int]]:
    """Return counts of pairs as lists of gold names, each with the counts of predicted names."""
    rows = pairs if isinstance(pairs, list) else pairs.to_pylist()
    counts = {(row["gold"], row["predicted"]): row["count"] for row in rows}
    assert len(counts) == len(rows)
    assert {name for pair in counts for name in pair} <= set(names)
    return [[counts.get((gold, predicted), 0) for predicted in names] for gold in names]


def assert_same_metrics(metrics: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare the metrics of all splits: exactly, but for losses, which round where batches differ."""

    def without_loss(of_splits: dict[str, Any]) -> dict[str, Any]:
        return {split: {name: value for name, value in of.items() if name != "loss"} for split, of in of_splits.items()}

    assert without_loss(metrics) == without_loss(expected)
    for split, of in expected.items():
        assert metrics[split]["loss"] == pytest.approx(of["loss"], rel=1e-6), split
