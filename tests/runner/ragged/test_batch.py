"""Batches: selection, layouts, and the deliberately wrong layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

LENGTHS = np.array([2, 0, 3, 1])


def split(per_token: bool) -> Batch:
    rows = Rows(LENGTHS, torch.device("cpu"))
    words = Ragged(torch.arange(1, 7), rows, "packed")
    tags = Ragged(torch.arange(11, 17), rows, "packed")
    return Batch({"words": words, "pos": tags}, tags if per_token else torch.arange(4), np.arange(10, 14))


def test_select_takes_features_targets_and_the_places_in_the_file() -> None:
    batch = split(per_token=True).select(np.array([2, 0]))
    assert batch.features["words"].values.tolist() == [3, 4, 5, 1, 2]
    assert batch.features["pos"].values.tolist() == [13, 14, 15, 11, 12]
    assert batch.features["words"].rows is batch.features["pos"].rows is batch.rows
    assert isinstance(batch.target, Ragged)
    assert batch.target.values.tolist() == [13, 14, 15, 11, 12]
    assert batch.index.tolist() == [12, 10]
    a_row_each = split(per_token=False).select(np.array([2, 0]))
    assert isinstance(a_row_each.target, torch.Tensor)
    assert a_row_each.target.tolist() == [2, 0]


def test_padded_tokens_count_places_in_memory() -> None:
    batch = split(per_token=True).select(np.array([2, 1, 3]), width=4)
    assert (batch.real_tokens, batch.padded_tokens) == (4, 0)
    padded = batch.pad()
    assert padded.features["words"].values.tolist() == [[3, 4, 5, 0], [0] * 4, [6, 0, 0, 0]]
    assert (padded.real_tokens, padded.padded_tokens) == (4, 8)


def test_unmasked_treats_padding_as_text_in_features_only() -> None:
    wrong = split(per_token=True).select(np.array([2, 3])).unmasked()
    assert wrong.features["words"].values.tolist() == [[3, 4, 5], [6, 0, 0]]
    assert wrong.rows.host_lengths.tolist() == [3, 3]
    assert isinstance(wrong.target, Ragged)
    assert wrong.target.rows.host_lengths.tolist() == [3, 1]


def test_moving_keeps_shared_rows_shared() -> None:
    batch = split(per_token=True)
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved.target, Ragged)
    assert moved.features["words"].rows is moved.features["pos"].rows is moved.target.rows
    assert moved.features["words"].values.device.type == "meta"


def test_ids_on_a_device_have_a_copy_on_the_host() -> None:
    """Select without synchronising: this device holds no values."""
    there = split(per_token=True).to(torch.device("meta"))
    chosen = np.array([2, 1, 3])
    for batch, laid_out in [(there.select(chosen), lambda one: one), (there.select(chosen, width=4), Batch.pad)]:
        seeded = laid_out(batch.with_seeds(torch.arange(3, device="meta")).step_by_step())
        assert seeded.features["words"].on_host().tolist() == [3, 4, 5, 6]
        assert seeded.features["words"].pack().on_host().tolist() == [3, 4, 5, 6]
    again = there.select(np.array([0, 2])).select(np.array([1]))
    assert again.features["pos"].on_host().tolist() == [13, 14, 15]
    wrong = there.select(chosen, width=4).unmasked().features["words"]
    assert wrong.on_host().reshape(3, 4).tolist() == [[3, 4, 5, 0], [0] * 4, [6, 0, 0, 0]]
    with pytest.raises(ValueError, match="these ids are on meta only"):
        there.features["words"].map(lambda ids: ids + 1).on_host()


def test_ids_on_the_host_are_those_of_the_values() -> None:
    for layout in (lambda one: one, Batch.pad, Batch.unmasked):
        batch = layout(split(per_token=True).select(np.array([2, 1, 3]), width=4))
        assert batch.features["words"].on_host().tolist() == batch.features["words"].tokens().tolist()


def test_seeds_follow_their_rows() -> None:
    batch = split(per_token=True).with_seeds(torch.tensor([5, 6, 7, 8]))
    assert isinstance(batch.target, Ragged)
    assert batch.features["words"].rows is batch.features["pos"].rows is batch.target.rows
    chosen = batch.select(np.array([2, 0])).pad()
    for rows in (chosen.rows, chosen.rows.single, chosen.unmasked().rows):
        assert rows.seeds is not None
        assert rows.seeds.tolist() == [7, 5]
    assert batch.with_seeds(None).select(np.array([2, 0])).rows.seeds is None


def test_seeds_are_one_a_row() -> None:
    for seeds in (torch.arange(3), torch.zeros(4), torch.zeros(4, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"need \(4,\) of int64"):
            split(per_token=True).with_seeds(seeds)


def test_step_by_step_keeps_seeds_and_shared_rows() -> None:
    batch = split(per_token=True).with_seeds(torch.arange(4)).step_by_step()
    moved = batch.to(torch.device("meta"))
    for item in (batch, batch.pad(), moved):
        assert item.rows.stepwise
        assert item.rows.seeds is not None
        assert item.features["words"].rows is item.features["pos"].rows
    assert not split(per_token=True).rows.stepwise
