from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from runner.common.errors import HydromelError
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.classify import Classify
from tests.helpers.metrics import measured
from tests.helpers.target_batches import EncoderOf, classify, labelled, rows_of, words

CONFIGS = Path(__file__).parents[2] / "configs/task"


def table(labels: list[str], **columns: Any) -> pa.Table:
    return pa.table({"label": labels, **columns})


def test_labels_become_ids_of_train() -> None:
    task = classify()
    vocab = task.target_vocab([table(["pos", "neg", "pos"])], {})
    assert vocab.tokens == ("neg", "pos")
    batch = task.encode(words([[1], [], [1, 2]]), table(["pos", "pos", "neg"]), {"target": vocab})
    assert batch.target.tolist() == [1, 1, 0]
    assert batch.index.tolist() == [0, 1, 2]
    assert task.count(batch) == 3
    assert task.count(batch.select(np.array([2, 0]))) == 2
    assert task.causal is False


@pytest.mark.parametrize(
    ("columns", "where"),
    [({}, "row 2"), ({"line": [4, 7]}, "dev.txt:7"), ({"origin": ["a.py:1", "b.py:30"]}, "b.py:30")],
)
def test_a_label_that_train_lacks_is_named_with_its_place(columns: dict[str, Any], where: str) -> None:
    actual = table(["pos", "odd"], **columns).replace_schema_metadata({"path": "dev.txt"})
    vocab = Vocab(("neg", "pos"))
    with pytest.raises(
        HydromelError, match=rf"^{where}: label 'odd' is not in the training set, .* 2 labels: neg, pos$"
    ):
        classify().encode(words([[1], [1]]), actual, {"target": vocab})


def test_a_long_list_of_labels_is_cut_and_further_strangers_are_counted() -> None:
    vocab = Vocab(tuple(f"c{number:02}" for number in range(50)))
    with pytest.raises(HydromelError) as error:
        classify().encode(words([[1]] * 3), table(["x", "c03", "y"]), {"target": vocab})
    assert str(error.value).startswith(
        "row 1: label 'x' is not in the training set (nor are 1 more in this split), which has 50 labels: c00, "
    )
    assert str(error.value).endswith("c11, ...")


def test_a_data_set_without_labels() -> None:
    with pytest.raises(HydromelError, match=r"^task=classify needs the column 'label', but this data set has tokens; "):
        classify().target_vocab([pa.table({"tokens": [["a"]]})], {})


def test_loss_is_the_sum_over_rows() -> None:
    torch.manual_seed(0)
    task, vocabs = classify(), {"target": Vocab(("a", "b", "c"))}
    batch = labelled([2, 0, 1], lengths=[3, 0, 1])
    encoded = Ragged(torch.randn(4, 5, dtype=torch.float64), batch.rows, "packed")
    head = task.head(EncoderOf(5), vocabs, torch.nn.Identity()).double()
    loss = head.loss(head(encoded, batch), batch)
    rows = [encoded.values[:3].amax(0), torch.zeros(5, dtype=torch.float64), encoded.values[3]]
    item = [
        -float(torch.log_softmax(head.linear(row), 0)[answer].detach())
        for row, answer in zip(rows, (2, 0, 1), strict=True)
    ]
    assert loss.count == 3
    assert float(loss.total.detach()) == pytest.approx(sum(item), rel=1e-12)


def test_an_encoder_of_one_vector_a_row_will_do() -> None:
    """A bag of words gives rows of length one, which pooling does not change."""
    task, batch = classify(pooling="mean"), labelled([0, 1], lengths=[5, 0])
    head = task.head(EncoderOf(3), {"target": Vocab(("a", "b"))}, torch.nn.Identity())
    vectors = torch.randn(2, 3)
    torch.testing.assert_close(head(Ragged(vectors, rows_of([1, 1]), "packed"), batch), head.linear(vectors))


def test_majority_is_the_most_frequent_label_of_train_on_test() -> None:
    task, vocabs = classify(), {"target": Vocab(("a", "b", "c"))}
    test = labelled([1, 0, 0, 1, 1])
    figures = measured(task, task.majority(labelled([1, 1, 0, 2]), test, vocabs), test, vocabs)
    assert figures["accuracy"] == pytest.approx(60.0)
    assert figures["macro_f1"] == pytest.approx(75.0 / 2)  # b: precision 3/5, recall 1; a: 0


def test_the_config_gives_every_option() -> None:
    options = yaml.safe_load((CONFIGS / "classify.yaml").read_text())
    assert options.pop("_target_") == "tasks.classify.Classify"
    assert options.pop("defaults") == ["_self_", {"override /dataset@_global_.dataset": "stdlib_modules"}]
    assert Classify(**options).main_metric == "accuracy"
