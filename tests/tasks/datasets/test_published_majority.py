"""Published data, read and encoded by the tasks: the targets' number and the majority baseline are the known ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from runner.config.instantiate import build
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.arrow import array, lengths_of
from runner.text.vocab import Feature
from tests.helpers.metrics import measured
from tests.helpers.published import DATA
from tests.helpers.target_batches import classify, lm, tag

CONFIGS = Path(__file__).parents[3] / "configs/dataset"
WORDS = Feature(
    column="tokens",
    lowercase=False,
    digits_to_zero=False,
    min_count=1,
    max_size=None,
    extend=False,
    unk_string="<unk>",  # as WikiText writes it
)
CLASSIFY = classify()
LM = lm()

pytestmark = pytest.mark.data


def encoded(dataset: str, task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    node = yaml.safe_load((CONFIGS / f"{dataset}.yaml").read_text(encoding="utf-8"))
    tables = build({**node, "data_dir": DATA}, "dataset", {}).read()
    vocabs = {"words": WORDS.vocab([tables["train"]])}
    vocabs["target"] = task.target_vocab([tables["train"]], vocabs)
    batches = {}
    for split, table in tables.items():
        rows = Rows(lengths_of(array(table["tokens"])), torch.device("cpu"))
        ids = torch.from_numpy(vocabs["words"].encode(WORDS.strings(table)).copy())
        batches[split] = task.encode({"words": Ragged(ids, rows, "packed")}, table, vocabs)
    return batches, vocabs


@pytest.mark.parametrize(
    ("dataset", "task", "counts", "expected"),
    [
        ("wnut17", tag(span_scheme="IOB2"), (62_730, 15_733, 23_394), {"accuracy": 92.6, "f1": 0.0}),
        ("ud_ewt", tag(), (204_577, 25_147, 25_094), {"accuracy": 16.4}),
        ("sst2", CLASSIFY, (6_920, 872, 1_821), {"accuracy": 100 * 909 / 1821}),
        ("wikitext2", LM, (2_088_628, 217_646, 245_569), {}),
    ],
)
def test_majority(dataset: str, task: Any, counts: tuple[int, ...], expected: dict[str, float]) -> None:
    batches, vocabs = encoded(dataset, task)
    assert tuple(task.count(batches[split]) for split in ("train", "valid", "test")) == counts
    figures = measured(task, task.majority(batches["train"], batches["test"], vocabs), batches["test"], vocabs)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=0.05)
    if dataset == "wikitext2":
        assert len(vocabs["target"]) == 33_278 + 1  # and <pad>
        assert figures["perplexity"] == pytest.approx(slow_unigram(batches), rel=1e-9)


def slow_unigram(batches: dict[str, Any]) -> float:
    train, test = (batches[split].target.values for split in ("train", "test"))
    frequency = train.bincount().double() / len(train)
    return float((-frequency.log()[test].mean()).exp())
