"""Computed sizes of micro-batches against the batches themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.components.run_components import build_batching
from runner.data.numericalize import arrange
from runner.ragged.batch import Batch
from tests.helpers.composed import data_of, label_files, parts, run_config


def made(*overrides: str) -> tuple[Any, Batch, list[Batch]]:
    """Return the strategy, the arranged training set and the other splits."""
    composed = run_config("cache_dir=null", *overrides)
    data, batching = data_of(composed), build_batching(composed.batching, [])
    train = arrange(parts(composed), batching, data.splits["train"], None)
    return batching, train, [data.splits["valid"], data.splits["test"]]


@pytest.mark.parametrize("batching", ["padmask", "packed", "size1", "token_budget", "unmasked"])
def test_shapes_are_those_that_go_through_the_model(batching: str, tmp_path: Path) -> None:
    options = ["batching.width_multiple=4", "batching.micro_batch=7", "batching.batch_size=20"]
    strategy, train, others = made(*label_files(tmp_path), f"batching={batching}", *options)
    lengths = train.rows.host_lengths
    updates = strategy.updates(lengths, 1, 0)
    batches = [(batch, train) for update in updates for batch in strategy.micro_batches(train, update)]
    compare(strategy.shapes(lengths, updates), batches)
    batches = [(batch, split) for split in others for batch in strategy.evaluation_batches(split, 9)]
    compare(strategy.evaluation_shapes(others, 9), batches)


@pytest.mark.parametrize("tokens", [3, 40, 500])
def test_shapes_of_a_stream(tokens: int, tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{'word ' * tokens}\n", encoding="utf-8")
    files = [f"data_dir={tmp_path}", *(f"dataset.{item}={item}.txt" for item in ("train", "valid", "test"))]
    options = ["task=lm", "task.unit=stream", "dataset=text", "batching=stream", "batching.batch_size=2"]
    strategy, train, others = made(*files, *options, "batching.window=9", "batching.evaluation_streams=3")
    lengths = train.rows.host_lengths
    updates = strategy.updates(lengths, 1, 0)
    batches = [(batch, train) for update in updates for batch in strategy.micro_batches(train, update)]
    compare(strategy.shapes(lengths, updates), batches)
    actual = strategy.evaluation_shapes(others, 128)
    for split, rows, width, n_tokens in zip(others, actual.rows, actual.widths, actual.tokens, strict=True):
        batches = list(strategy.evaluation_batches(split, 128))
        most = max(batches, key=lambda batch: batch.rows.n_tokens)
        assert (rows, width) == (most.rows.n_rows, most.rows.width)
        assert n_tokens >= most.rows.n_tokens


def compare(result: Any, batches: list[tuple[Batch, Batch]]) -> None:
    assert batches
    assert result.rows.tolist() == [batch.rows.n_rows for batch, _ in batches]
    assert result.tokens.tolist() == [split.rows.host_lengths[batch.index].sum() for batch, split in batches]
    if batches[0][0].features["words"].layout == "packed":
        assert result.widths.tolist() == [max(1, batch.rows.max_len) for batch, _ in batches]
    else:
        assert result.widths.tolist() == [batch.rows.width for batch, _ in batches]
