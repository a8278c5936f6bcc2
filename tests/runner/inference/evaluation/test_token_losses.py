"""Losses of a split's tokens: each once, in the split's order, for every strategy, layout and window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from runner.batching.stream import Stream
from runner.config.instantiate import build
from runner.data.numericalize import columns_of
from runner.inference.predictions import split_values
from runner.inference.trained import TrainedModel
from runner.ragged.batch import Batch
from runner.training.evaluation import evaluate
from tests.helpers.composed import config
from tests.helpers.language_models import trained

ROWS = [["a", "b", "c"], [], ["c"], ["b", "a"] * 5, ["zebra", "a"], [], ["a", "a", "b", "c", "b", "a", "c"]]
STRATEGIES = ("size1", "padmask", "packed", "timestep", "bucketed", "same_length", "token_budget")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def split_of(run: TrainedModel) -> Batch:
    table = pa.table({"tokens": pa.array(ROWS, pa.list_(pa.string()))})
    return run.task.encode(columns_of(table, run.features, run.vocabs), table, run.vocabs)


def reference(run: TrainedModel, rows: list[Batch]) -> torch.Tensor:
    """Return (N,) losses of rows that are read one at a time, each whole."""
    head = run.model.head
    with torch.inference_mode():
        return torch.cat([head.losses(run.model(row, None)[0], row).tokens() for row in rows])  # type: ignore[union-attr]


@pytest.mark.parametrize("encoder", ["lstm", "transformer", "conv"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows(encoder: str, strategy: str) -> None:
    run = trained(encoder)
    split = split_of(run)
    wanted = reference(run, [split.select(np.array([row])) for row in range(len(ROWS))])
    batching = build(config(f"batching={strategy}")["batching"], "batching", {})
    for batch_size in (1, 3, 100):
        actual = split_values(run.model, batching, split, batch_size, False, ["losses"])["losses"]
        np.testing.assert_allclose(actual.tokens(), wanted, **EXACT)  # type: ignore[union-attr]
        measures = run.measures.start(run.vocabs)
        whole = evaluate(run.model, measures, batching.evaluation_batches(split, batch_size), bf16=False)
        assert whole["nll"] == pytest.approx(float(wanted.mean()), rel=1e-12), "weighted by tokens"


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("streams", [1, 4, 7])
@pytest.mark.parametrize("encoder", ["lstm", "transformer", "conv"])
def test_a_stream_in_windows_equals_the_whole_stream(encoder: str, streams: int, layout: str) -> None:
    """Streams of different lengths, each starting without context, and windows of any length."""
    run = trained(encoder, "task.unit=stream", *(["encoder.memory=4"] if encoder == "transformer" else []))
    split = split_of(run)
    per_stream = -(-split.real_tokens // streams)
    item = build(config("batching=stream", f"batching.layout={layout}")["batching"], "batching", {})
    assert isinstance(item, Stream)
    batching = replace(item, evaluation_streams=streams, window=per_stream)
    wanted = reference(run, list(replace(batching, evaluation_streams=1, layout="packed").evaluation_batches(split, 1)))
    assert len(wanted) == split.real_tokens == sum(map(len, ROWS)) + len(ROWS)
    for window in (1, 2, 5, 100):
        actual = split_values(run.model, replace(batching, window=window), split, 1, False, ["losses"])["losses"]
        np.testing.assert_allclose(actual.tokens(), wanted, **EXACT)  # type: ignore[union-attr]
