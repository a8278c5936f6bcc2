"""Training on tags of one scheme, measured in the data set's scheme."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from runner.common.errors import HydromelError
from runner.components.measures import started
from runner.ragged.ragged import Ragged
from tasks.spans.table import all_tags
from tasks.tag import Tag
from tests.helpers import target_batches
from tests.helpers.composed import run, tag_files
from tests.helpers.target_batches import ids, words

SCHEMES = ("IOB1", "IOB2", "IOBES")
TYPES = ("LOC", "PER")


def tag(span_scheme: str | None, train_scheme: str | None) -> Tag:
    return target_batches.tag(span_scheme=span_scheme, train_scheme=train_scheme)


def table(rows: list[list[str]]) -> pa.Table:
    return pa.table({"tags": pa.array(rows, pa.list_(pa.string()))})


def retagged(row: list[str], scheme: str) -> list[str]:
    """Encode the spans that seqeval finds in tags of `scheme`, one by one."""
    new = ["O"] * len(row)
    before = ("", -1)
    for kind, start, end in get_entities(row):
        for place in range(start, end + 1):
            new[place] = f"I-{kind}"
        if scheme != "IOB1" or before == (kind, start - 1):
            new[start] = f"B-{kind}"
        if scheme == "IOBES":
            new[end] = f"{'S' if start == end else 'E'}-{kind}"
        before = (kind, end)
    return new


def random_rows(scheme: str, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    tags = all_tags(TYPES, scheme)
    return [[tags[place] for place in rng.integers(0, len(tags), rng.integers(1, 9))] for _ in range(200)]


@pytest.mark.parametrize("learned", SCHEMES)
@pytest.mark.parametrize("own", ["IOB1", "IOB2"])
def test_figures_are_those_of_the_converted_predictions(own: str, learned: str) -> None:
    gold = [retagged(row, own) for row in random_rows("IOB2", seed=1)]
    answers = [
        retagged(row, learned) if place % 2 else other
        for place, (row, other) in enumerate(zip(gold, random_rows(learned, seed=2), strict=True))
    ]
    answers = [(row + ["O"] * 9)[: len(wanted)] for row, wanted in zip(answers, gold, strict=True)]
    task = tag(own, learned)
    vocab = task.target_vocab([table(gold)], {})
    assert vocab.tokens == tuple(all_tags(TYPES, learned))
    batch = task.encode(words([[1] * len(row) for row in gold]), table(gold), {"target": vocab})
    metric = started(task.metric, {"target": vocab})
    metric.update(ids([vocab.ids[item] for row in answers for item in row]), batch)
    figures: dict[str, Any] = metric.compute()
    back = [row if learned == own else retagged(row, own) for row in answers]
    assert 0 < f1_score(gold, back) < 1
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert figures[name] == pytest.approx(100 * score(gold, back))
    assert figures["accuracy"] == pytest.approx(100 * accuracy_score(gold, back))
    assert figures["spans"]["scheme"] == own


@pytest.mark.parametrize("learned", SCHEMES)
def test_targets_are_in_the_learned_scheme(learned: str) -> None:
    rows = [["B-PER", "I-PER", "B-PER", "O"], [], ["B-LOC"]]
    task = tag("IOB2", learned)
    vocab = task.target_vocab([table(rows)], {})
    batch = task.encode(words([[1] * len(row) for row in rows]), table(rows), {"target": vocab})
    assert isinstance(batch.target, Ragged)
    output = [vocab.tokens[value] for value in batch.target.values.tolist()]
    ends = batch.rows.host_offsets
    assert [output[a:b] for a, b in pairwise(ends)] == [retagged(row, learned) for row in rows]
    assert batch.target.values.dtype == torch.int64


def test_a_type_that_train_lacks_is_named_as_the_file_writes_it() -> None:
    task = tag("IOB2", "IOBES")
    vocabs = {"target": task.target_vocab([table([["B-PER"]])], {})}
    with pytest.raises(
        HydromelError, match=r"^row 1, token 2: tag 'B-LOC' is not in the training set, .* tags: O, B-PER, I-PER"
    ):
        task.encode(words([[1, 1]]), table([["B-PER", "B-LOC"]]), vocabs)


def test_plain_and_malformed_tags_cannot_be_converted() -> None:
    with pytest.raises(HydromelError, match=r"^task.train_scheme=IOBES needs span tags, but task.span_scheme=null"):
        tag(None, "IOBES")
    with pytest.raises(
        HydromelError, match=r"^task.train_scheme=IOBES: 'X-A' in the training set is not a tag of IOB2"
    ):
        tag("IOB2", "IOBES").target_vocab([table([["B-A", "X-A"]])], {})
    assert tag("IOB2", "IOB2").target_vocab([table([["B-A", "X-A"]])], {}).tokens == ("O", "B-A", "I-A", "X-A")


def test_a_run_learns_in_one_scheme_and_is_measured_in_the_files(tmp_path: Path) -> None:
    small = ("encoder=rnn", "encoder.hidden=8", "train.epochs=6", "batching.batch_size=8")
    files = tag_files(tmp_path)
    for scheme in ("null", "IOBES"):
        result = run(tmp_path / scheme, *files, *small, f"task.train_scheme={scheme}", "optimizer.lr=0.02")
        assert result["vocab"]["size"]["target"] == (9 if scheme == "IOBES" else 5)
        figures = result["metrics"]["test"]
        assert figures["f1"] > 90
        assert figures["spans"] == {"scheme": "IOB2", "mode": "default"}
        assert sum(item["support"] for item in figures["per_type"]) > 50


def test_an_unknown_train_scheme(tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match=r"^task.train_scheme='BIOE'; use one of IOB1, IOB2, .*BMEWO, "):
        run(tmp_path / "run", *tag_files(tmp_path), "task.train_scheme=BIOE")
