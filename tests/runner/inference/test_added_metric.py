"""A metric that the config adds is checked first, and fed predictions or losses, whatever the task's own takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.components.measures import Measures
from runner.components.run_components import build_strategy
from runner.config.hashes import comparison_hash, config_hash
from runner.inference.predictions import split_values
from runner.interfaces import InputKind, Scale
from runner.model import build_model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from runner.training.evaluation import evaluate
from tasks.metrics.row_accuracy import RowAccuracy
from tests.helpers.composed import config, data_of, parts, run, run_config, tag_files
from tests.helpers.target_batches import ids, tag, tagged

SMALL = ("embedding.size=4", "train.epochs=1", "baselines=false", "dtype=float64", "encoder=rnn", "encoder.hidden=4")


class MeanLoss:
    """The mean of all losses; `scales` as given."""

    input_kind: InputKind = "losses"

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        self.scales = scales

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self.losses: list[Tensor] = []

    def update(self, values: Tensor, batch: Batch) -> None:
        self.losses = [*self.losses, values]

    def compute(self) -> dict[str, float]:
        return {"mean_loss": float(torch.cat(self.losses).mean())}


def test_a_metric_needs_figures_of_its_own() -> None:
    lower = Scale("nats", higher_is_better=False)
    assert Measures.of(tag(), MeanLoss({"mean_loss": lower})).main == "mean_loss"
    with pytest.raises(Exception, match="metric: MeanLoss has no figures; name at least one"):
        Measures.of(tag(), MeanLoss({}))
    with pytest.raises(Exception, match="metric: task=tag measures 'accuracy' itself; give the figure of MeanLoss"):
        Measures.of(tag(), MeanLoss({"accuracy": lower}))


@pytest.mark.parametrize("head", ["softmax", "crf"])
@pytest.mark.parametrize("strategy", ["padmask", "packed"])
def test_losses_of_a_tagger_come_in_the_order_of_the_split(tmp_path: Path, head: str, strategy: str) -> None:
    options = run_config(*tag_files(tmp_path, rows=30), *SMALL, f"task.head={head}", "cache_dir=null")
    data, result = data_of(options), parts(options)
    torch.manual_seed(1)
    model, split = build_model(result, data.vocabs).double(), data.splits["test"]
    batching = build_strategy(config(f"batching={strategy}")["batching"], [])
    actual = split_values(model, batching, split, 4, False, ["losses", "predictions"])
    assert len(actual["predictions"].tokens()) == split.real_tokens  # type: ignore[union-attr]
    rows = [split.select(np.array([row])) for row in range(split.rows.n_rows)]
    with torch.inference_mode():
        alone = [model.head.loss(model(row, None)[0], row).total for row in rows]  # type: ignore[union-attr, operator]
    measured = evaluate(model, result.measures.start(data.vocabs), batching.evaluation_batches(split, 4), False)
    assert measured["loss"] == pytest.approx(float(sum(alone)) / split.n_targets), (
        "the mean of the split, not of batches"
    )
    losses = actual["losses"]
    if isinstance(losses, Ragged):  # of a CRF there is one loss per row
        losses = torch.stack([row.sum() for row in losses.tokens().split(split.rows.host_lengths.tolist())])
    torch.testing.assert_close(losses, torch.stack(alone))


@pytest.mark.parametrize("unit", [["task.unit=line"], ["task.unit=stream", "batching=stream"]], ids=["line", "stream"])
def test_a_language_model_is_measured_by_its_predictions_too(tmp_path: Path, unit: list[str]) -> None:
    for split, count in (("train", 40), ("valid", 10), ("test", 10)):
        (tmp_path / f"{split}.txt").write_text("a b c\n\n" * count, encoding="utf-8")
    files = [f"data_dir={tmp_path}", *(f"dataset.{split}={split}.txt" for split in ("train", "valid", "test"))]
    result = run(tmp_path / "run", "task=lm", "dataset=text", *files, *SMALL, *unit, "metric=row_accuracy")
    assert result["quality"] == {"metric": "row_accuracy", "unit": "%", "higher_is_better": True}
    assert 0 <= result["metrics"]["test"]["row_accuracy"] <= 100
    assert {"perplexity", "nll"} <= result["metrics"]["test"].keys()
    assert "row_accuracy" not in result["majority"], "a unigram model has losses, no predictions"
    assert (tmp_path / "run" / "outcomes.npz").exists()


def test_without_a_metric_hashes_are_those_of_before_the_group_existed() -> None:
    plain, added = config("task=tag"), config("task=tag", "metric=row_accuracy")
    assert "metric" not in plain
    for hashed in (config_hash, comparison_hash):
        assert hashed(plain) != hashed(added)


def test_row_accuracy_counts_rows_that_are_entirely_right() -> None:
    metric = RowAccuracy()
    metric.start({})
    metric.update(ids([1, 2, 0]), tagged([[1, 2], [1]]))
    metric.update(ids([]), tagged([[]]))
    assert metric.compute() == {"row_accuracy": pytest.approx(200 / 3)}
    terms = metric.outcomes("row_accuracy", np.array([1, 2, 0]), tagged([[1, 2], [1]]))
    assert (terms.numerator.tolist(), terms.denominator.tolist(), terms.targets.tolist()) == ([100, 0], [1, 1], [2, 1])
