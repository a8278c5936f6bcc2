"""Learned word vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from runner.embeddings.word import WordEmbedding
from runner.layers.dropout import number_dropout_layers
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab

VOCAB = Vocab(tuple(f"w{i}" for i in range(60)), SPECIALS)


def word(**changes: Any) -> WordEmbedding:
    options: dict[str, Any] = {"size": 40, "init_range": None, "unk_rate": 0.0, "type_dropout": 0.0, "dropout": 0.0}
    return WordEmbedding(vocabs={"words": VOCAB}, feature="words", **{**options, **changes})


def ids(lists: list[list[int]]) -> dict[str, Ragged]:
    return {"words": Ragged.from_lists(lists, torch.int32)}


def test_vectors_are_drawn_from_the_range_asked_for() -> None:
    torch.manual_seed(1)
    for init_range, spread in ((None, 1.0), (0.25, 0.5 / math.sqrt(12))):
        weight = word(init_range=init_range).weight.detach()
        assert not weight[0].any(), "<pad>"
        torch.testing.assert_close(weight[1:].std(), torch.tensor(spread), rtol=0.05, atol=0)
        assert init_range is None or weight.abs().max() <= init_range


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_dropped_type_is_zero_at_all_its_positions_in_the_row(layout: str) -> None:
    torch.manual_seed(1)
    module = word(type_dropout=0.4)
    rng = np.random.default_rng(1)
    lists = [rng.integers(1, 60, n).tolist() for n in (400, 0, 300, 1)]
    features = ids(lists)
    rows = features["words"].rows
    plain = module.eval()(features).values
    assert torch.equal(plain, module.weight[features["words"].values]), "off in evaluation"
    module.train()
    given = features if layout == "packed" else {"words": features["words"].pad()}
    lost = []
    for _ in range(2):
        vectors = module(given).tokens()
        of_row = []
        for row, begin in zip(lists, rows.host_offsets, strict=False):
            kept: dict[int, bool] = {}
            for place, item in enumerate(row):
                vector = vectors[begin + place]
                is_kept = kept.setdefault(item, bool(vector.any()))
                torch.testing.assert_close(vector, plain[begin + place] / 0.6 if is_kept else torch.zeros(40))
            of_row.append({item for item, is_kept in kept.items() if not is_kept})
        lost.append(of_row)
        assert 10 < len(of_row[0]) < 38, "of 59 types"
    assert lost[0][0] != lost[0][2], "another row loses others"
    assert lost[0][0] != lost[1][0], "and the same row in another update"
    vectors = module(given).tokens()
    module.zero_grad()
    vectors.sum().backward()
    gradient = module.weight.grad
    assert gradient is not None
    used = {item for row in lists for item in row}
    assert 0 < len({item for item in used if gradient[item].any()}) <= len(used)


def test_a_seeded_row_drops_the_same_types_in_any_batch() -> None:
    torch.manual_seed(1)
    module = word(type_dropout=0.4).train()
    number_dropout_layers(module)
    rows = [[3, 4, 5, 3, 6, 7, 8, 9], [5, 3], [9, 8, 7, 3]]
    seeds = torch.tensor([11, 12, 13])

    def read(chosen: list[int], padded: bool) -> list[torch.Tensor]:
        item = ids([rows[row] for row in chosen])["words"]
        with_seeds = Ragged(item.values, item.rows.with_seeds(seeds[chosen]), "packed")
        values = module({"words": with_seeds.pad() if padded else with_seeds}).tokens()
        return [*values.split([len(rows[row]) for row in chosen])]

    alone = [read([row], padded=False)[0] for row in range(3)]
    for padded in (False, True):
        for row, values in zip([2, 0, 1], read([2, 0, 1], padded), strict=True):
            assert torch.equal(values, alone[row])
    assert any(not vector.any() for values in alone for vector in values)
