"""Hinge and count heads, and given scores, compared with textbook updates and plain counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from runner.training.optimizers import parameters_by_rate
from tasks.classify import Classify
from tasks.heads.outputs import BACK_OFF, hinge, relative_frequencies, scorer
from tests.helpers.composed import config, label_files, run, tag_files
from tests.helpers.counted_tags import most_frequent, noisy_tag_files
from tests.helpers.target_batches import EncoderOf, classify, labelled, tag, tagged, words

LABELS = {"target": Vocab(("a", "b", "c"))}
LR = 0.25


def given(**changes: Any) -> Classify:
    """Return a task whose summed vectors are scores, trained with the hinge loss."""
    return classify(**{"pooling": "sum", "head": "hinge", "scores": "given", **changes})


def slow_hinge(scores: Tensor, right: list[int]) -> list[float]:
    rows = [list(enumerate(row)) for row in scores.tolist()]
    return [
        sum(max(0.0, 1 - (1 if label == gold else -1) * score) for label, score in row)
        for row, gold in zip(rows, right, strict=True)
    ]


def test_hinge_is_the_sum_of_margins_that_are_missed() -> None:
    torch.manual_seed(0)
    scores, right = 2 * torch.randn(20, 3, dtype=torch.float64), [n % 3 for n in range(20)]
    assert hinge(scores, torch.tensor(right)).tolist() == pytest.approx(slow_hinge(scores, right))
    assert hinge(scores.bfloat16(), torch.tensor(right)).dtype == torch.float32


def test_weights_of_present_features_move_by_the_rate_where_the_margin_is_missed_and_only_there() -> None:
    """A worked example: w <- w + lr * y if y * score < 1. Score 0.5 is inside the margin; 1.0 and -1.5 are not."""
    table = nn.Embedding(5, 3)
    nn.init.zeros_(table.weight)
    with torch.no_grad():
        table.weight[1] = torch.tensor([0.5, -1.5, 1.0])
    before = table.weight.detach().clone()
    features, batch = words([[1, 2]]), labelled([0])
    head = given().head(EncoderOf(3), LABELS, nn.Identity())
    optimizer = torch.optim.SGD([*table.parameters(), *head.parameters()], lr=LR)
    loss = head.loss(head(features["words"].map(table), batch), batch)
    assert float(loss.total.detach()) == pytest.approx(0.5 + 0.0 + 2.0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moved = table.weight.detach() - before
    assert moved[1].tolist() == moved[2].tolist() == [LR, 0.0, -LR]
    assert not moved[[0, 3, 4]].any()  # absent features


def test_a_margin_of_exactly_one_is_kept() -> None:
    scores = torch.tensor([[1.0, -1.0, -1.0]], requires_grad=True)
    hinge(scores, torch.tensor([0])).sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert not scores.grad.any()


@pytest.mark.parametrize("scores", ["linear", "given"])
def test_scores_are_linear_or_the_vectors_themselves(scores: Any) -> None:
    head = given(scores=scores, pooling="mean").head(EncoderOf(3), LABELS, nn.Identity())
    assert isinstance(head.linear, nn.Linear) == (scores == "linear")
    batch = labelled([0, 1], lengths=[2, 1])
    vectors = torch.randn(3, 3)
    actual = head(Ragged(vectors, batch.rows, "packed"), batch)
    pooled = torch.stack([vectors[:2].mean(0), vectors[2]])
    torch.testing.assert_close(actual, head.linear(pooled) if scores == "linear" else pooled)


def test_vectors_that_cannot_be_scores_are_an_error() -> None:
    with pytest.raises(HydromelError, match=r"^task.scores=given and task.head=count need an encoder output of size 3"):
        given().head(EncoderOf(8), LABELS, nn.Identity())
    with pytest.raises(HydromelError, match="need an encoder output of size"):
        tag(head="count").head(EncoderOf(8), LABELS, nn.Identity())
    with pytest.raises(
        HydromelError, match=r"^task.constraints=decode: task.head=count has no transitions to constrain"
    ):
        tag(head="count", span_scheme="IOB2", constraints="decode")


def test_shares_of_counts() -> None:
    shares = relative_frequencies(torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert shares.tolist() == [[0.75, 0.25, 0.0, 0.0], [0.25] * 4]


def test_the_bias_of_counts_learns_at_its_own_rate() -> None:
    result = scorer(True, 3, 3, "count")
    groups = {group["learning_rate_factor"]: group["params"] for group in parameters_by_rate(result)}
    assert [id(item) for item in groups[BACK_OFF]] == [id(result.bias)]


def test_the_most_frequent_tag_of_each_word_is_a_config(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "experiment=most_frequent_tag", *noisy_tag_files(tmp_path))
    answers, gold = most_frequent(tmp_path)
    right = sum(a == b for a, b in zip(answers, gold, strict=True))
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(100 * right / len(gold))
    assert result["updates"]["count"] == 1
    written = (tmp_path / "run" / "predictions" / "test.conll").read_text(encoding="utf-8").split("\n")
    assert [line.split("\t")[-1] for line in written if line] == answers


@pytest.mark.parametrize("files", [tag_files, label_files])
def test_majority_is_a_config(tmp_path: Path, files: Any) -> None:
    result = run(tmp_path / "run", "experiment=majority", *files(tmp_path))
    assert result["metrics"]["test"]["accuracy"] == result["majority"]["accuracy"] > 0


def test_a_linear_svm_and_a_bag_of_unit_norm_are_configs(tmp_path: Path) -> None:
    for name, encoder in (("svm", "sqrt"), ("unit_bow", "unit_sum")):
        overrides = [f"experiment={name}", *label_files(tmp_path)]
        assert config(*overrides)["encoder"]["pool"] == encoder
        result = run(tmp_path / name, *overrides, "embedding.buckets=1000" if name == "svm" else "seed=2")
        assert result["metrics"]["test"]["accuracy"] > result["majority"]["accuracy"] + 20


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_counts_of_a_tagger_are_its_gold_tags(layout: str) -> None:
    batch = tagged([[0, 1], [], [2]])
    batch = batch if layout == "packed" else batch.pad()
    head = tag(head="count").head(EncoderOf(3), LABELS, nn.Identity())
    vectors = torch.eye(3).requires_grad_()
    encoded = Ragged(vectors, batch.rows, "packed")
    if layout == "padded":
        encoded = encoded.pad(fill=float("nan"))
    loss = head.loss(head(encoded, batch), batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert (-vectors.grad).tolist() == torch.eye(3).tolist()
    assert loss.count == 3
