"""Worked cases of the literature: right without padding, and right with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.interfaces import START
from runner.layers.convolution import Convolution
from runner.layers.pooling import AttentionPool, pooling
from runner.layers.recurrent.recurrence import Recurrence
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.contract import CPU, rows_of


def one_feature(*rows: list[float], layout: Any, widen: int = 2) -> Ragged:
    x = Ragged.from_lists(list(rows))
    values = Ragged(x.values[:, None], rows_of([len(row) for row in rows], widen), "packed")
    return values if layout == "packed" else values.pad(0.0)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_pools_of_the_literature(layout: Any) -> None:
    rows = one_feature([1, 10, 8, 17, 13, 17], [22, 24, 9, 13], layout=layout)
    assert pooling("mean", 1)(rows).flatten().tolist() == [11.0, 17.0]  # 11.33 over the padded width
    assert pooling("max", 1)(one_feature([-3, -1, -4, -3, -2], layout=layout)).item() == -1  # 0 with zeros as padding
    assert pooling("min", 1)(one_feature([3, 1, 4, 3, 2], layout=layout)).item() == 1
    rows = one_feature([1, 2, 3, 4], [5, 6], [7], [], layout=layout)
    summed = pooling("unit_sum", 1)(rows)
    assert summed.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]  # unit norm, and an empty row stays finite


def test_mask_of_the_literature() -> None:
    assert rows_of((5, 3, 4)).mask.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_convolutions_of_the_literature(layout: Any) -> None:
    layer = Convolution(1, 1, 3, causal=False).double()
    layer.convolution.weight.data.copy_(torch.tensor([[[1.0, 2.0, 3.0]]]))
    layer.convolution.bias.data.zero_()  # type: ignore[union-attr]
    rows = one_feature([4, 5, 6, 7, 8], [6, 14, 7], layout=layout, widen=1)
    assert layer(rows, None).pack().values.flatten().tolist() == [23, 32, 38, 44, 23, 54, 55, 28]


def test_batched_scores_of_the_literature() -> None:
    features = torch.tensor([[1.0, 2, 3, 4], [13, 14, 15, 16]])
    weight = torch.tensor([[5.0, 9], [6, 10], [7, 11], [8, 12]])
    scored = Ragged(features, rows_of((2,)), "packed").map(lambda values: values @ weight)
    assert scored.values.tolist() == [[70, 110], [382, 614]]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_attention_weights_of_the_literature(layout: Any) -> None:
    """A row of 3 in a width of 5; the tokens are the unit vectors, so that their weighted mean is the weights."""
    scores = torch.tensor([0.5, 0.2, -1.0]).double()
    pool = AttentionPool(3).double()
    pool.hidden.weight.data.copy_(torch.eye(3))
    pool.hidden.bias.data.zero_()
    pool.query.weight.data.copy_(scores[None] / np.tanh(1.0))
    x = Ragged(torch.eye(3).double(), Rows(np.array([3]), CPU, width=5), "packed")
    weights: Tensor = pool(x if layout == "packed" else x.pad())
    assert [round(value, 4) for value in weights[0].tolist()] == [0.5092, 0.3772, 0.1136]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_final_state_of_the_literature_is_that_of_each_rows_own_end(layout: Any, reverse: bool) -> None:
    lengths = (4, 2, 8)
    torch.manual_seed(0)
    x = Ragged(torch.randn(sum(lengths), 6).double(), rows_of(lengths), "packed")
    layer = Recurrence("lstm", 6, 5, reverse).double()
    output, state = layer(x if layout == "packed" else x.pad(), START)
    assert state is not None
    for row, tokens in enumerate(output.tokens().split(list(lengths))):
        torch.testing.assert_close(state[0][row], tokens[0 if reverse else -1])
