"""Labels that only valid or test has are never predicted, wrong and gold in every figure, without loss, and told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from runner.cli.evaluate import main
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.saved import write_config
from runner.experiment.run import run_experiment
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tests.helpers.composed import QUIET, run_config
from tests.helpers.target_batches import EncoderOf, classify, tag, tagged, words

SMALL = ("encoder=none", "embedding.size=4", "train.epochs=1", "dtype=float64", "threads=1")
STRINGS = pa.list_(pa.string())
OF = {"train": ["B-A", "O"], "valid": ["B-A", "B-N", "O"], "test": ["B-N", "I-N", "O", "B-A", "B-N"]}


def table(tags: list[str]) -> pa.Table:
    return pa.table({"tokens": pa.array([["w"] * len(tags)], STRINGS), "tags": pa.array([tags], STRINGS)})


def encoded(task: Any) -> tuple[Vocab, dict[str, list[str]]]:
    """Return the vocabulary, and the learned tags of each split."""
    tables = {split: table(tags) for split, tags in OF.items()}
    target = task.with_unseen(task.target_vocab([tables["train"]], {}), list(tables.values()))
    batches = {s: task.encode(words([[1] * len(OF[s])]), tables[s], {"target": target}) for s in OF}
    return target, {split: target.decode(batch.target.values.tolist()) for split, batch in batches.items()}


def test_unseen_tags_follow_those_that_can_be_predicted() -> None:
    target, tags = encoded(tag(span_scheme="IOB2", strict=False))
    assert (target.tokens, target.known) == (("O", "B-A", "I-A", "B-N", "I-N"), 3)
    assert tags == OF
    head = tag(span_scheme="IOB2", strict=False).head(EncoderOf(4), {"target": target}, nn.Identity())
    assert head(*_inputs()).shape[1] == 3


def _inputs() -> tuple[Ragged, Any]:
    batch = tagged([[0]])
    assert isinstance(batch.target, Ragged)
    return Ragged(torch.zeros(1, 4), batch.target.rows, "packed"), batch


def test_unseen_types_are_converted_as_others_are() -> None:
    target, tags = encoded(tag(span_scheme="IOB2", train_scheme="IOBES", strict=False))
    assert target.learned.tokens == ("O", "B-A", "I-A", "E-A", "S-A")
    assert tags["test"] == ["B-N", "E-N", "O", "S-A", "S-N"]
    task = tag(span_scheme="IOB2", train_scheme="IOBES", strict=False)
    own = task.own_tags({"target": target})
    ids = np.array([target.ids[name] for name in tags["test"]])
    assert [own.tags[id_] for id_ in own.ids(ids, np.array([0, 5]))] == OF["test"]


def test_strict_refuses_them_with_their_place() -> None:
    with pytest.raises(HydromelError, match=r"^row 1, token 2: tag 'B-N' is not in the training set, which has 3 tags"):
        encoded(tag(span_scheme="IOB2", strict=True))


@pytest.mark.parametrize("head", ["softmax", "crf", "count"])
def test_they_have_no_loss(head: str) -> None:
    vocabs = {"target": Vocab(("a", "b", "c", "d", "new"), extra=1, counts=(1, 1, 1, 1))}
    torch.manual_seed(0)
    module: Any = tag(head=head).head(EncoderOf(4), vocabs, nn.Identity())
    losses = []
    for hidden in (4, -100):  # unseen, or ignored
        batch = tagged([[0, hidden, 2], [1]])
        assert isinstance(batch.target, Ragged)
        scores = module(Ragged(torch.linspace(-1, 1, 16).view(4, 4), batch.target.rows, "packed"), batch)
        loss = module.losses(scores, batch)
        losses.append(loss.values if isinstance(loss, Ragged) else loss)
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0].isfinite().all()


def test_tags_that_would_change_how_others_are_read_are_refused() -> None:
    tables = [table(["B", "I", "O"]), table(["B-X"])]
    task = tag(span_scheme="IOB2", strict=False)
    target = task.target_vocab([tables[0]], {})
    assert task.with_unseen(target, tables) == target


LABELS = {"train": "ab" * 10, "valid": "abcab", "test": "abccdba"}


def test_a_classifier_counts_them_as_scikit_learn_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, labels in LABELS.items():
        lines = [json.dumps({"text": f"word {label}", "label": label}) for label in labels]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [f"dataset.{split}={split}.jsonl" for split in LABELS]
    overrides = ("task=classify", "dataset=jsonl", f"data_dir={tmp_path}", *files, "encoder=bow", *SMALL[1:])
    composed, folder = run_config(*QUIET, *overrides, f"runs_dir={tmp_path}"), tmp_path / "run"
    folder.mkdir()
    write_config(composed, folder)
    with caplog.at_level(logging.INFO):
        result = run_experiment(composed, folder, 0.0)
    assert "targets of test whose label the training set lacks: 3 (c 2, d 1); they count as missed" in caplog.text
    assert "targets of valid whose label the training set lacks: 1 (c 1); they count as missed" in caplog.text
    rows = (folder / run_schema.PREDICTIONS / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    gold, predicted = zip(*(row.split("\t")[:2] for row in rows), strict=True)
    assert "".join(gold) == LABELS["test"]
    assert set(predicted) <= {"a", "b"}
    figures = result["metrics"]["test"]
    assert figures["accuracy"] == pytest.approx(100 * accuracy_score(gold, predicted))
    assert figures["macro_f1"] == pytest.approx(100 * f1_score(gold, predicted, average="macro", zero_division=0.0))
    support = {row["name"]: row["support"] for row in figures["per_class"]}  # type: ignore[attr-defined]
    assert support == {"a": 2, "b": 2, "c": 2, "d": 1}
    with np.load(folder / run_schema.OUTCOMES) as outcomes:
        assert outcomes["denominator"].tolist() == [1] * 7
        assert outcomes["numerator"].tolist() == [100 * (a == b) for a, b in zip(gold, predicted, strict=True)]
    assert result["data"]["test"]["unseen"] == {"c": 2, "d": 1}
    assert result["vocab"]["size"]["target"] == 2
    caplog.clear()
    assert main([f"run={folder}", "--json", str(tmp_path / "evaluated.json")]) == 0
    evaluated = json.loads((tmp_path / "evaluated.json").read_text(encoding="utf-8"))["metrics"]
    assert evaluated["accuracy"] == figures["accuracy"]
    with pytest.raises(HydromelError, match=r"valid\.jsonl:3: label 'c' is not in the training set"):
        run_experiment(run_config(*QUIET, *overrides, "task.strict=true", f"runs_dir={tmp_path}"), tmp_path / "no", 0.0)


def test_rows_of_many_labels_miss_them() -> None:
    task = classify(labels="many", strict=False, ignore=["?"])
    rows = pa.table({"labels": pa.array([["a"], ["a", "b"]], STRINGS)})
    test = pa.table({"labels": pa.array([["a", "new"], [], ["?", "b"]], STRINGS)})
    target = task.with_unseen(task.target_vocab([rows], {}), [rows, test])
    assert (target.tokens, target.known) == (("a", "b", "new"), 2)
    batch = task.encode(words([[1]] * 3), test, {"target": target})
    assert (batch.target.tolist(), batch.left_out) == ([[0, 2], [-1, -1], [1, -1]], 1)
