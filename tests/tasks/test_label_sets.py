"""Classification with any number of labels per row: targets, thresholds, figures, baselines and predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from runner.common.errors import HydromelError
from runner.components.measures import started
from runner.interfaces import Predictions
from runner.text.vocab import Vocab
from tasks.heads.label_sets import CANDIDATES, LabelSetOutput, best_thresholds
from tasks.metrics.label_sets import LabelSetMetric
from tasks.metrics.row_accuracy import RowAccuracy
from tasks.predictions.label_sets import LabelSetInspector
from tasks.targets import label_sets
from tests.helpers.metrics import measured
from tests.helpers.target_batches import classify, with_sets, words

ABC = {"target": Vocab(("a", "b", "c"))}


def many(**changes: Any) -> Any:
    return classify(labels="many", **changes)


def table(labels: list[list[str]]) -> pa.Table:
    columns = {"labels": pa.array(labels, pa.list_(pa.string())), "line": list(range(1, len(labels) + 1))}
    return pa.table(columns).replace_schema_metadata({b"path": b"x.txt"})


def test_sets_become_ids_of_train_and_rows_may_have_none() -> None:
    task, rows = many(), table([["b", "a"], [], ["b", "b"], ["c"]])
    vocab = task.target_vocab([rows], {})
    assert (vocab.tokens, vocab.counts) == (("a", "b", "c"), (1, 3, 1))
    batch = task.encode(words([[1], [2], [], [3]]), rows, {"target": vocab})
    assert batch.target.tolist() == [[0, 1], [-1, -1], [1, -1], [2, -1]]
    assert label_sets(batch, 3).tolist() == [
        [True, True, False],
        [False] * 3,
        [False, True, False],
        [False, False, True],
    ]
    assert label_sets(batch.select(np.array([3, 1])), 2).tolist() == [[False, False]] * 2  # only labels below 2
    assert task.count(batch) == 4
    nothing = task.encode(words([[1]]), table([[]]), {"target": vocab})
    assert label_sets(nothing, 3).tolist() == [[False] * 3]


def test_a_column_of_single_labels_will_do() -> None:
    rows = pa.table({"label": ["a", "c"]})
    batch = many().encode(words([[1], [1]]), rows, ABC)
    assert batch.target.tolist() == [[0], [2]]


def test_one_label_per_row_is_read_from_sets_of_one() -> None:
    task, rows = classify(), table([["b"], ["a"]])
    assert task.target_vocab([rows], {}).tokens == ("a", "b")
    assert task.encode(words([[1], [1]]), rows, ABC).target.tolist() == [1, 0]


@pytest.mark.parametrize(("labels", "shown"), [(["a", "c"], "2 labels (a, c)"), ([], "0 labels (none)")])
def test_several_labels_where_one_is_needed_are_refused_with_the_line(labels: list[str], shown: str) -> None:
    task, rows = classify(), table([["b"], labels])
    for call in (lambda: task.target_vocab([rows], {}), lambda: task.encode(words([[1], [1]]), rows, ABC)):
        with pytest.raises(HydromelError) as error:
            call()
        assert str(error.value) == (
            f"x.txt:2: {shown}, but task=classify with task.labels=one needs one per row; use task.labels=many"
        )


def test_no_label_at_all() -> None:
    with pytest.raises(HydromelError, match=r"^train has no label$"):
        many().target_vocab([table([[], []])], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "many", "head": "softmax"}, "task.head=softmax: with task.labels=many use sigmoid, hinge"),
        ({"labels": "many", "quality": "accuracy"}, "task.quality=accuracy: with task.labels=many use micro_f1, .*"),
        ({"labels": "one", "head": "sigmoid"}, "task.head=sigmoid: with task.labels=one use softmax, hinge, count"),
        ({"labels": "one", "threshold": 0.4}, "task.threshold=0.4 has no effect with task.labels=one; .*"),
        ({"labels": "many", "label_weights": "balanced"}, "task.label_weights=balanced is for one label .*"),
        ({"labels": "many", "head": "hinge", "label_smoothing": 0.1}, "task.label_smoothing=0.1 needs .*"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HydromelError, match=f"^{message}$"):
        classify(**options)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge"])
def test_loss_is_the_sum_of_binary_losses(kind: Any) -> None:
    batch, weights = with_sets([[0, 2], [], [1]]), torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
    scores = torch.tensor([[0.3, -2.0, 1.5], [4.0, 0.0, -1.0], [0.1, 0.2, 0.3]], dtype=torch.float64)
    smoothing = 0.1 if kind == "sigmoid" else 0.0
    output = LabelSetOutput(kind, 3, 0.5, smoothing, weights)
    gold = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    expected = []
    for row, present in zip(scores.tolist(), gold, strict=True):
        terms = []
        for score, is_gold, weight in zip(row, present, weights.tolist(), strict=True):
            yes = 1 / (1 + np.exp(-score))
            share = is_gold * 0.9 + 0.05
            binary = -share * np.log(yes) - (1 - share) * np.log(1 - yes)
            term = binary if kind == "sigmoid" else max(0.0, 1 - (score if is_gold else -score))
            terms.append(term * (weight if is_gold else 1.0))
        expected.append(sum(terms))
    assert output.losses(scores, batch).tolist() == pytest.approx(expected)
    loss = output.loss(scores, batch)
    assert (float(loss.total), loss.count) == (pytest.approx(sum(expected)), 3)
    # A row's loss and gradient do not depend on the others.
    single = LabelSetOutput(kind, 3, 0.5, smoothing, weights).losses(scores[1:2], batch.select(np.array([1])))
    assert single.tolist() == pytest.approx(expected[1:2])


def masks(rows: int, labels: int) -> st.SearchStrategy[Any]:
    return st.lists(st.lists(st.booleans(), min_size=labels, max_size=labels), min_size=rows, max_size=rows)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_figures_are_those_of_scikit_learn(data: st.DataObject) -> None:
    n, known, unseen = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 3)), data.draw(st.integers(0, 1))
    gold = np.array(data.draw(masks(n, known + unseen)))
    predicted = np.array(data.draw(masks(n, known)))
    vocab = Vocab(tuple(f"l{i}" for i in range(known + unseen)), extra=unseen)
    batch = with_sets([np.flatnonzero(row).tolist() for row in gold])
    metric = started(LabelSetMetric(), {"target": vocab})
    for start in range(0, n, 3):
        rows = np.arange(start, min(n, start + 3))
        metric.update(torch.from_numpy(predicted[rows]), batch.select(rows))
    figures = metric.compute()
    padded = np.pad(predicted, ((0, 0), (0, unseen)))
    seen = (gold | padded).any(axis=0)
    micro = {"average": "micro", "zero_division": 0}
    expected = {
        "micro_precision": precision_score(gold, padded, **micro),
        "micro_recall": recall_score(gold, padded, **micro),
        "micro_f1": f1_score(gold, padded, **micro),
        "macro_f1": f1_score(gold, padded, average=None, zero_division=0)[seen].mean() if seen.any() else 0.0,
        "sample_f1": f1_score(gold, padded, average="samples", zero_division=1),
        "subset_accuracy": accuracy_score(gold, padded),
    }
    assert {name: figures[name] for name in expected} == pytest.approx({k: 100 * v for k, v in expected.items()})
    for figure in expected:
        outcomes = metric.outcomes(figure, predicted, batch)
        if figure == "macro_f1":
            assert outcomes is None
        else:
            assert outcomes is not None
            total = outcomes.numerator.sum() / max(1, outcomes.denominator.sum())
            assert total == pytest.approx(figures[figure])
            assert outcomes.targets.tolist() == gold.sum(axis=1).tolist()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_thresholds_have_the_best_f1_of_all_candidates(data: st.DataObject) -> None:
    n, labels = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 2))
    gold = np.array(data.draw(masks(n, labels)))
    percents = st.lists(st.integers(0, 100), min_size=labels, max_size=labels)
    probability = np.array(data.draw(st.lists(percents, min_size=n, max_size=n))) / 100
    scores = torch.from_numpy(probability).logit()
    batch = with_sets([np.flatnonzero(row).tolist() for row in gold])

    def f1(threshold: float, columns: Any) -> float:
        predicted, right = (torch.sigmoid(scores) >= threshold).numpy()[:, columns], gold[:, columns]
        return float(2 * (predicted & right).sum() / max(1, predicted.sum() + right.sum()))

    def best(columns: Any) -> float:
        of_candidates = {threshold: f1(threshold, columns) for threshold in CANDIDATES.tolist()}
        return min(of_candidates, key=lambda t: (-round(of_candidates[t], 12), abs(t - 0.5) if t != 0.5 else -1.0))

    for threshold in ("one", "per_label"):
        output = LabelSetOutput("sigmoid", labels, threshold, 0.0, None).double()
        chooser = output.chooser()
        assert chooser is not None
        for start in range(0, n, 5):
            rows = np.arange(start, min(n, start + 5))
            chooser.update(scores[rows], batch.select(rows))
        chooser.choose()
        groups = [slice(None)] * labels if threshold == "one" else [[label] for label in range(labels)]
        for chosen, columns in zip(output.thresholds.tolist(), groups, strict=True):
            wanted = best(columns)
            assert f1(chosen, columns) == pytest.approx(f1(wanted, columns))
            assert abs(chosen - 0.5) == pytest.approx(abs(wanted - 0.5))


def test_a_fixed_threshold_is_not_chosen_and_labels_without_gold_keep_a_half() -> None:
    output = LabelSetOutput("sigmoid", 2, 0.25, 0.0, None)
    assert output.chooser() is None
    batch = with_sets([[0]])
    assert output.predict(torch.tensor([[-1.0, -1.2]]), batch).tolist() == [[True, False]]  # 0.269 and 0.231
    counts = np.zeros((1, len(CANDIDATES) + 1), dtype=np.int64)
    counts[0, 30] = 7
    assert best_thresholds(counts, np.zeros_like(counts)).tolist() == [0.5]


def test_thresholds_are_in_the_checkpoint() -> None:
    output = LabelSetOutput("sigmoid", 2, "per_label", 0.0, None)
    assert output.state_dict().keys() == {"thresholds"}


def test_majority_and_svm() -> None:
    task = many()
    train = with_sets([[0, 1], [0], [0, 2], [1]] * 8)
    assert task.majority(train, with_sets([[0], []]), ABC).tolist() == [[True, False, False]] * 2
    assert not task.majority(with_sets([[0], [1]]), with_sets([[0]]), ABC).any()
    # Word w is in the rows with label w - 2; the last rows have none.
    texts = [[2, 3], [2], [2, 4], [3], [5]]
    sets = [[word - 2 for word in text if word < 5] for text in texts]
    both = many().encode(words(texts * 8), table([["abc"[label] for label in row] for row in sets] * 8), ABC)
    vocabs = {"words": Vocab(("w2", "w3", "w4", "w5"), ("<pad>", "<unk>")), **ABC}
    ((name, predicted),) = task.baselines(both, both, vocabs)
    assert name == "svm"
    assert measured(task, predicted, both, vocabs)["subset_accuracy"] == 100.0


def test_predictions_are_read_and_written(tmp_path: Path) -> None:
    inspector = LabelSetInspector(("a", "b", "new"), np.array([0.5, 0.25]))
    split = with_sets([[0, 2], [], [1]])
    sets = np.array([[True, True], [False, False], [False, True]])
    probability = np.array([[0.9, 0.6], [0.2, 0.1], [0.3, 0.8]], dtype=np.float32)
    assert inspector.decode(sets, split.rows.host_offsets).to_pylist() == [["a", "b"], [], ["b"]]
    predictions = Predictions(sets, probability)
    tables: Any = inspector.tables(predictions, split)
    assert sum(row["count"] for row in tables["calibration"]["bins"]) == 6
    columns = tables["per_class"].select(["name", "f1", "support", "threshold"]).to_pydict()
    expected = {"name": ["a", "b", "new"], "f1": [100.0, 200 / 3, 0.0], "support": [1, 1, 1]}
    assert columns == {**expected, "threshold": [0.5, 0.25, None]}
    rows = table([["a", "new"], [], ["b"]])
    inspector.write(predictions, split, "test", None, rows, tmp_path)  # type: ignore[arg-type]
    lines = (tmp_path / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "gold": ["a", "new"],
        "predicted": ["a", "b"],
        "probability": {"a": 0.9, "b": 0.6},
        "place": "x.txt:1",
    }
    assert json.loads(lines[1]) == {"gold": [], "predicted": [], "probability": {}, "place": "x.txt:2"}


def test_a_metric_of_single_predictions_is_refused() -> None:
    from runner.components.measures import Measures

    with pytest.raises(HydromelError, match="RowAccuracy measures predictions, but task=classify predicts label_sets"):
        Measures.of(many(), RowAccuracy())
