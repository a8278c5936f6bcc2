"""Worked cases from the literature, as far as they concern tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tests.helpers.metrics import measured, perplexity_metric
from tests.helpers.target_batches import EncoderOf, classify, labelled, tag, tagged

TWO = {"target": Vocab(("right", "wrong"))}


def test_batched_scores() -> None:
    batch = labelled([0, 1], lengths=[1, 1])
    head = classify(pooling="sum").head(EncoderOf(4), TWO, nn.Identity())
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[5.0, 6, 7, 8], [9, 10, 11, 12]]))
        head.linear.bias.zero_()
    features = torch.tensor([[1.0, 2, 3, 4], [13, 14, 15, 16]])
    assert head(Ragged(features, batch.rows, "packed"), batch).tolist() == [[70, 110], [382, 614]]


@pytest.mark.parametrize("layout", ["padded", "unmasked"])
def test_masked_token_loss(layout: str) -> None:
    """The right tag's score over the other's at five places of which three are real: -956 and 10000 do not count."""
    picked = [-3.4, 0.6, 0.37, -956.0, 10000.0]
    split = tagged([[0, 0, 0], [0]]).select(np.array([0, 1]), width=5)
    batch = split.pad() if layout == "padded" else split.unmasked()
    values = torch.zeros(2, 5, 1, dtype=torch.float64)
    values[0, :, 0] = torch.tensor(picked, dtype=torch.float64)
    head = tag().head(EncoderOf(1), TWO, nn.Identity()).double()
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0], [0.0]]))
        head.linear.bias.zero_()
    loss = head.loss(head(Ragged(values, batch.rows, "padded"), batch), batch)
    expected = sum(math.log1p(math.exp(-score)) for score in [*picked[:3], 0.0])
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-12)
    assert loss.count == 4


@pytest.mark.parametrize("batches", [[4], [1, 3], [2, 1, 1]])
def test_perplexity(batches: list[int]) -> None:
    """exp(1.242) = 3.464, however the tokens are cut into batches; the mean of per-batch perplexities is not."""
    nll = -torch.tensor([1 / 4, 1 / 3, 1 / 4, 1 / 3], dtype=torch.float64).log()
    metric = perplexity_metric()
    for part in nll.split(batches):
        metric.add(part)
    figures = metric.compute()
    assert figures["nll"] == pytest.approx(1.242, abs=5e-4)
    assert figures["perplexity"] == pytest.approx(3.464, abs=5e-4)


def test_perplexity_is_no_mean_of_batches() -> None:
    nll = -torch.tensor([1 / 4, 1 / 3, 1 / 4, 1 / 3], dtype=torch.float64).log()
    of_batches = [float(part.mean().exp()) for part in nll.split([1, 3])]
    assert sum(of_batches) / 2 != pytest.approx(3.464, abs=5e-4)


def test_majority_of_a_fair_test_is_chance() -> None:
    task = classify()
    test = labelled([0, 1, 0, 1])
    assert measured(task, task.majority(labelled([1, 1, 0]), test, TWO), test, TWO)["accuracy"] == 50.0
