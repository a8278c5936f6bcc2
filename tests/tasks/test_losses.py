"""Losses of single targets and rows: they sum to the loss, and equal those of single-example runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from runner.config.instantiate import build
from runner.interfaces import Head, Task
from runner.layers.pooling import sum_pool
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.target_batches import EncoderOf, labelled, tagged

CONFIGS = Path(__file__).parents[2] / "configs" / "task"
TASKS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
VOCABS: Mapping[str, Vocab] = {name: Vocab(("a",), SPECIALS) for name in ("words", "target")}


def per_row(losses: torch.Tensor | Ragged) -> torch.Tensor:
    """Return each row's contribution (B,) to the loss; rows without tokens contribute 0."""
    return sum_pool(losses) if isinstance(losses, Ragged) else losses


def head_and_batch(name: str, dropout: float = 0.0) -> tuple[Head, Batch]:
    node = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    node.pop("defaults", None)
    plain = {"span_scheme": None} if "span_scheme" in node else {}
    task: Task = build(node | {"dropout": dropout} | plain, "task", {})
    torch.manual_seed(0)
    head: Any = task.head(EncoderOf(5), VOCABS, torch.nn.Identity())
    batch = tagged([[1, 2, 3], [], [1]])
    if name in ("classify", "regress"):
        batch = labelled([2, 0, 1], lengths=[3, 0, 1])
    if name == "regress":
        batch = replace(batch, target=torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    return head.double(), batch


def encoded(batch: Batch) -> Ragged:
    torch.manual_seed(1)
    return Ragged(torch.randn(batch.rows.n_tokens, 5, dtype=torch.float64), batch.rows, "packed")


def test_there_are_tasks() -> None:
    assert {"classify", "tag", "lm"} <= set(TASKS)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_losses_add_up_and_are_those_of_each_row_alone(name: str, layout: str) -> None:
    head, batch = head_and_batch(name)
    x = encoded(batch)
    scores = head(x if layout == "packed" else x.pad(), batch)
    loss, losses = head.loss(scores, batch), per_row(head.losses(scores, batch))
    assert losses.shape == (3,)
    torch.testing.assert_close(losses.sum(), loss.total)
    for row in range(3):
        item = batch.select(np.array([row]))
        alone = head.loss(head(x.select(np.array([row])), item), item).total
        torch.testing.assert_close(losses[row], alone)


@pytest.mark.parametrize("name", TASKS)
def test_a_heads_dropout_is_its_rows_own_where_they_bring_seeds(name: str) -> None:
    head, batch = head_and_batch(name, dropout=0.5)
    batch = batch.with_seeds(torch.tensor([7, 8, 9]))
    x = Ragged(encoded(batch).values, batch.rows, "packed")
    actual = [per_row(head.losses(head(item, batch), batch)) for item in (x, x.pad())]
    alone = []
    for row in range(3):
        one = batch.select(np.array([row]))
        alone.append(per_row(head.losses(head(Ragged(x.select(np.array([row])).values, one.rows, "packed"), one), one)))
    for losses in actual:
        torch.testing.assert_close(losses, torch.cat(alone))
    other = batch.with_seeds(torch.tensor([17, 18, 19]))
    assert not torch.allclose(
        actual[0], per_row(head.losses(head(Ragged(x.values, other.rows, "packed"), other), other))
    )
