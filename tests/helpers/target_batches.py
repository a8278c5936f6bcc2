"""Splits of a task as `Batch`es, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tasks.classify import Classify
from tasks.lm import Lm
from tasks.regress import Regress
from tasks.tag import Tag
from tasks.targets import label_set_ids


def lm(**changes: Any) -> Lm:
    """A task of language modelling: a full softmax, nothing dropped or penalised."""
    options: dict[str, Any] = {"quality": "perplexity", "unit": "line", "feature": "words", "tie_weights": False}
    options |= {"init_range": None}
    options |= {"cutoffs": None, "chunk_scores": 24, "precision": "same", "dropout": 0.0, "locked_dropout": 0.0}
    options |= {"activation_penalty": 0.0, "change_penalty": 0.0}
    return Lm(**{"name": "lm", **options, **changes})


def rows_of(lengths: Sequence[int]) -> Rows:
    return Rows(np.array(lengths, dtype=np.int64), torch.device("cpu"))


def words(lists: Sequence[Sequence[int]]) -> dict[str, Ragged]:
    """The feature `words` of some rows of ids, packed."""
    ids = torch.tensor([item for row in lists for item in row], dtype=torch.int32)
    return {"words": Ragged(ids, rows_of([len(row) for row in lists]), "packed")}


def labelled(labels: Sequence[int], lengths: Sequence[int] | None = None) -> Batch:
    """Rows with one answer each."""
    features = words([[1] * n for n in (lengths or [2] * len(labels))])
    return Batch(features, torch.tensor(labels, dtype=torch.int64), np.arange(len(labels)))


def with_sets(sets: Sequence[Sequence[int]], lengths: Sequence[int] | None = None) -> Batch:
    """Rows with any number of answers each."""
    split = labelled([0] * len(sets), lengths)
    ids = np.array([item for row in sets for item in row], dtype=np.int64)
    return replace(split, target=label_set_ids(ids, np.cumsum([0, *map(len, sets)])))


def tagged(rows: Sequence[Sequence[int]]) -> Batch:
    """Rows with one answer a token."""
    features = words([[1] * len(row) for row in rows])
    target = torch.tensor([item for row in rows for item in row], dtype=torch.int64)
    return Batch(features, Ragged(target, features["words"].rows, "packed"), np.arange(len(rows)))


def classify(**changes: Any) -> Classify:
    """The task without hidden layers, dropout, smoothing and weights, unless `changes` say so."""
    plain = {"name": "classify", "labels": "one", "pooling": "max", "scores": "linear"}
    none: dict[str, Any] = {"pairs": None, "hidden": [], "dropout": 0.0, "label_smoothing": 0.0}
    none |= {"label_weights": None, "ignore": [], "strict": True}
    chosen = {"quality": None, "head": None, "threshold": None}
    return Classify(**{**plain, **none, **chosen, **changes})


def regress(**changes: Any) -> Regress:
    """The task without hidden layers and dropout, unless `changes` say so."""
    plain = {"name": "regress", "quality": "pearson", "pooling": "max", "pairs": None, "loss": "mse", "delta": 1.0}
    return Regress(**{**plain, "hidden": [], "dropout": 0.0, **changes})


def tag(**changes: Any) -> Tag:
    """The task for plain tags by a softmax, without dropout, smoothing and weights, unless `changes` say so."""
    plain = {"name": "tag", "quality": None, "span_scheme": None, "train_scheme": None, "head": "softmax"}
    none: dict[str, Any] = {"constraints": "none", "dropout": 0.0, "label_smoothing": 0.0, "label_weights": None}
    none |= {"ignore": [], "strict": True}
    return Tag(**{**plain, **none, **changes})


@dataclass(frozen=True)
class EncoderOf:
    """An encoder as a head's constructor sees it."""

    output_size: int
    per_token: bool = True


def ids(predicted: Sequence[int]) -> torch.Tensor:
    """Answers as a head predicts them."""
    return torch.tensor(predicted, dtype=torch.int64)
