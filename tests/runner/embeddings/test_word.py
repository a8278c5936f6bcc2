"""Learned vectors."""

from __future__ import annotations

import math
from typing import Any

import torch

from runner.embeddings.word import Word
from runner.ragged import Ragged
from runner.vocab import EOS, PAD, UNK, Vocab

VOCAB = Vocab((PAD, UNK, EOS, *(f"w{i}" for i in range(60))), unk=1)


def word(**changes: Any) -> Word:
    options: dict[str, Any] = {"size": 40, "init_range": None, "unk_rate": 0.0, "dropout": 0.0}
    return Word(vocabs={"words": VOCAB}, feature="words", **{**options, **changes})


def ids(lists: list[list[int]]) -> dict[str, Ragged]:
    return {"words": Ragged.from_lists(lists, torch.int32)}


def test_vectors_are_drawn_from_the_range_asked_for() -> None:
    torch.manual_seed(1)
    for init_range, spread in ((None, 1.0), (0.25, 0.5 / math.sqrt(12))):
        weight = word(init_range=init_range).weight.detach()
        assert not weight[0].any(), "<pad>"
        torch.testing.assert_close(weight[1:].std(), torch.tensor(spread), rtol=0.05, atol=0)
        assert init_range is None or weight.abs().max() <= init_range
