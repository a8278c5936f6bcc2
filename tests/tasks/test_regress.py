"""Regression: targets, losses, figures, baselines and predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import nn

from runner.common.errors import HydromelError
from runner.components.measures import started
from runner.interfaces import Predictions
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab
from tasks.baselines.baselines import PENALTY, features_of, texts_of
from tasks.heads.numbers import NumberOutput
from tasks.metrics.numbers import NumberMetric, ranks
from tasks.predictions.numbers import NumberInspector
from tasks.regress import Regress
from tests.helpers.metrics import measured
from tests.helpers.target_batches import labelled, regress, words

CONFIGS = Path(__file__).parents[2] / "configs/task"


def valued(values: list[float]) -> Batch:
    return replace(labelled([0] * len(values)), target=torch.tensor(values, dtype=torch.float64))


def table(**columns: Any) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({**columns, "line": list(range(2, n + 2))}).replace_schema_metadata({b"path": b"x.csv"})


def test_numbers_are_read_from_values_or_from_labels() -> None:
    task = regress()
    rows = table(label=[" 1.5", "-2e-3 ", "+7", ".5", "3."])
    assert task.target_vocab([rows], {}).tokens == ("value",)
    batch = task.encode(words([[1]] * 5), rows, {})
    assert batch.target.tolist() == [1.5, -0.002, 7.0, 0.5, 3.0]
    assert batch.target.dtype == torch.float64
    both = table(label=["x"], value=pa.array([2], pa.int64()))
    assert task.encode(words([[1]]), both, {}).target.tolist() == [2.0]
    assert task.count(batch.select(np.array([4, 1]))) == 2


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        *[({"label": ["1", text]}, f"'{text}'") for text in ("nan", "inf", "1,5", "", "0x1", "1_000", "one", "1e999")],
        ({"label": pa.array(["1", None])}, "None"),
        ({"value": pa.array([1.0, None])}, "None"),
        ({"value": [1.0, float("nan")]}, "nan"),
        ({"value": [1.0, float("inf")]}, "inf"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(column: dict[str, Any], shown: str) -> None:
    for call in (
        lambda rows, _: regress().target_vocab([rows], {}),
        lambda rows, _: regress().encode(words([[1], [1]]), rows, {}),
    ):
        with pytest.raises(HydromelError) as error:
            call(table(**column), {})
        assert str(error.value) == f"x.csv:3: {shown} is no finite number; task=regress needs one per row"


def test_a_data_set_without_numbers() -> None:
    with pytest.raises(HydromelError, match=r"^task=regress needs numbers in the column 'value' or 'label', but this"):
        regress().target_vocab([pa.table({"tokens": [["a"]]})], {})


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_are_of_standardised_targets(loss: Any) -> None:
    train = valued([10.0, 30.0, 20.0, 40.0])
    output = NumberOutput(loss, 0.5).double()
    output.learn_scale(train)
    mean, deviation = 25.0, float(np.std([10.0, 30.0, 20.0, 40.0]))
    assert (float(output.mean), float(output.deviation)) == (mean, pytest.approx(deviation))
    scores = torch.tensor([[0.1], [-2.0], [0.0]], dtype=torch.float64)
    batch = valued([26.0, 21.0, 99.0])
    errors = [score - (value - mean) / deviation for (score,), value in zip(scores.tolist(), [26, 21, 99], strict=True)]

    def term(error: float) -> float:
        if loss == "huber":
            return error**2 / 2 if abs(error) <= 0.5 else 0.5 * (abs(error) - 0.25)
        return error**2 if loss == "mse" else abs(error)

    assert output.losses(scores, batch).tolist() == pytest.approx([term(error) for error in errors])
    total = output.loss(scores, batch)
    assert (float(total.total), total.count) == (pytest.approx(sum(map(term, errors))), 3)
    assert output.predict(scores, batch).tolist() == pytest.approx([mean + s * deviation for (s,) in scores.tolist()])
    assert output.probabilities(scores, batch) is None
    assert output.state_dict().keys() == {"mean", "deviation"}


def test_a_large_mean_keeps_its_digits_in_a_float32_model() -> None:
    output = nn.Sequential(NumberOutput("mse", 1.0)).to(dtype=torch.float32)[0]
    assert isinstance(output, NumberOutput)
    train = valued([1.7e9 + 9.0, 1.7e9 + 11.0])
    output.learn_scale(train)
    output.float()
    assert output.losses(torch.zeros(2, 1), train).tolist() == [1.0, 1.0]
    assert output.predict(torch.ones(1, 1), train).tolist() == [1.7e9 + 11.0]


def test_equal_targets_are_not_divided_by_zero() -> None:
    output = NumberOutput("mse", 1.0)
    output.learn_scale(valued([3.0, 3.0]))
    assert output.predict(torch.tensor([[0.5]]), valued([1.0])).tolist() == [3.5]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12))
def test_figures_are_those_of_scipy_and_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = (np.array(column, dtype=np.float64) / 4 for column in zip(*pairs, strict=True))
    split, metric = valued(gold.tolist()), started(NumberMetric(), {})
    for start in range(0, len(gold), 5):
        rows = np.arange(start, min(len(gold), start + 5))
        metric.update(torch.from_numpy(predicted[rows]), split.select(rows))
    figures = metric.compute()
    varied = np.ptp(gold) > 0 and np.ptp(predicted) > 0
    expected = {
        "pearson": pearsonr(gold, predicted).statistic if varied else 0.0,
        "spearman": spearmanr(gold, predicted).statistic if varied else 0.0,
        "r2": r2_score(gold, predicted),
        "mse": mean_squared_error(gold, predicted),
        "mae": mean_absolute_error(gold, predicted),
    }
    assert figures == pytest.approx(expected, abs=1e-12)
    for figure in ("r2", "mse", "mae"):
        if outcomes := metric.outcomes(figure, predicted, split):
            assert outcomes.numerator.sum() / outcomes.denominator.sum() == pytest.approx(figures[figure])
    assert ranks(gold).tolist() == rankdata(gold).tolist()


def test_large_targets_keep_their_digits() -> None:
    gold = 1e9 + np.arange(8.0)
    metric = started(NumberMetric(), {})
    metric.update(torch.from_numpy(gold + 0.5), valued(gold.tolist()))
    assert metric.compute() == pytest.approx(
        {"pearson": 1, "spearman": 1, "r2": 1 - 8 * 0.25 / 42, "mse": 0.25, "mae": 0.5}
    )


def test_an_infinite_prediction_is_an_error() -> None:
    metric = started(NumberMetric(), {})
    metric.update(torch.tensor([float("inf")], dtype=torch.float64), valued([1.0]))
    with pytest.raises(HydromelError, match="infinite"):
        metric.compute()


def test_mean_and_ridge() -> None:
    task, rng = regress(), np.random.default_rng(0)
    texts = [rng.integers(2, 7, rng.integers(0, 5)).tolist() for _ in range(60)]
    values = [sum(row) + 0.1 * n for n, row in enumerate(texts)]
    split = task.encode(words(texts), table(value=values), {})
    train, test = split.select(np.arange(40)), split.select(np.arange(40, 60))
    assert task.majority(train, test, {}).tolist() == pytest.approx([np.mean(values[:40])] * 20)
    assert measured(task, task.majority(train, test, {}), test, {"target": Vocab(("value",))})["pearson"] == 0.0
    vocabs = {"words": Vocab(tuple("abcde"), ("<pad>", "<unk>"))}
    ((name, predicted),) = task.baselines(train, test, vocabs)
    assert name == "ridge"
    rows, test_rows = (features_of(texts_of(part, vocabs["words"], False), part, 7) for part in (train, test))
    model = Ridge(alpha=PENALTY, fit_intercept=False).fit(rows, np.array(values[:40]) - np.mean(values[:40]))
    np.testing.assert_allclose(predicted.numpy(), model.predict(test_rows) + np.mean(values[:40]), rtol=1e-3)


def test_predictions_are_written(tmp_path: Path) -> None:
    inspector, split = NumberInspector(), valued([1.0, 2.5])
    predictions = Predictions(np.array([1.25, 2.0]), None)
    assert inspector.decode(predictions.numbers, np.array([0, 1, 2])).to_pylist() == [1.25, 2.0]
    inspector.write(predictions, split, "test", None, table(value=[1.0, 2.5]), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "test.tsv").read_text(encoding="utf-8").splitlines() == [
        "gold\tpredicted\terror\tplace",
        "1.0\t1.25\t0.25\tx.csv:2",
        "2.5\t2\t-0.5\tx.csv:3",
    ]


def test_written_predictions_of_large_numbers_keep_their_digits(tmp_path: Path) -> None:
    predictions = Predictions(np.array([1700000012.25]), None)
    NumberInspector().write(predictions, valued([1.7e9]), "test", None, table(value=[1.7e9]), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "test.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[1] == "1700000012.25"


def test_the_config_gives_every_option() -> None:
    options = yaml.safe_load((CONFIGS / "regress.yaml").read_text())
    assert options.pop("_target_") == "tasks.regress.Regress"
    del options["defaults"]
    assert Regress(**options).main_metric == "pearson"
