"""Started metrics of given labels, and the figures of a task's own metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from runner.components.measures import Measures
from runner.interfaces import Task
from runner.ragged.batch import Batch
from runner.text.vocab import EOS, PAD, UNK, Vocab
from tasks.metrics.metrics import LabelMetric, PerplexityMetric, SpanMetric
from tasks.spans.table import as_scheme


def label_metric(labels: Sequence[str]) -> LabelMetric:
    metric = LabelMetric()
    metric.start({"target": Vocab(tuple(labels), unk=None)})
    return metric


def span_metric(tags: Sequence[str], scheme: str) -> SpanMetric:
    metric = SpanMetric(scheme=as_scheme(scheme), learned_scheme=as_scheme(scheme))
    metric.start({"target": Vocab(tuple(tags), unk=None)})
    return metric


def perplexity_metric(per_character: bool = False) -> PerplexityMetric:
    metric = PerplexityMetric(feature="words", stream=False)
    metric.start({"target": Vocab((PAD, UNK, EOS, "a" if per_character else "word"), unk=1)})
    return metric


def measured(task: Task, values: Tensor, split: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
    """Return the figures and tables of the task's metric for predictions or losses of a whole split."""
    return Measures.of(task).of_split({task.metric.input_kind: values}, split, vocabs)
