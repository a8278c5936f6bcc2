"""experiment=ngram_mlp is Bengio's model: the concatenated vectors of n - 1 tokens, one hidden layer, a softmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.model import build_model
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import parts, run, run_config
from tests.helpers.target_batches import words

VOCAB = Vocab((*"abcdefghij",), SPECIALS)
VOCABS = {"words": VOCAB, "target": VOCAB}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    composed = run_config("experiment=ngram_mlp", "embedding.size=6", "encoder.filters=5")
    return build_model(parts(composed), VOCABS).double().eval()


def hidden(model: Any, ids: list[int]) -> Tensor:
    """Compute the softmax's input (length, filters) for one row."""
    with torch.no_grad():
        encoded: Ragged = model.encoder(model.embedding(words([ids])), None)[0]
    return encoded.tokens()


def test_its_window_is_four_tokens(model: Any) -> None:
    ids = np.random.default_rng(1).integers(3, len(VOCAB), 12)
    before = hidden(model, ids.tolist())
    for place in range(len(ids)):
        changed = ids.copy()
        changed[place] = 3 + (changed[place] - 2) % (len(VOCAB) - 3)
        moved = (hidden(model, changed.tolist()) != before).any(dim=1)
        assert moved.tolist() == [place <= at < place + 4 for at in range(len(ids))]


def test_it_is_a_matrix_times_the_embeddings_end_to_end(model: Any) -> None:
    ids = [2, 5, 4, 9, 3, 3]
    table = torch.cat([torch.zeros(3, 6, dtype=torch.float64), model.embedding.weight[ids]])  # zeros before the row
    layer = model.encoder.layers[0][0].convolution
    matrix = layer.weight.permute(2, 1, 0).reshape(4 * 6, 5)
    expected = torch.stack([torch.tanh(table[at : at + 4].flatten() @ matrix + layer.bias) for at in range(len(ids))])
    torch.testing.assert_close(hidden(model, ids), expected)


def test_it_learns_what_n_grams_learn_and_words_alone_do_not_say(tmp_path: Path) -> None:
    """Return rows in which each token is the sum of the two before it, modulo 7."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 300), ("valid", 20), ("test", 20)):
        rows = rng.integers(0, 7, (count, 20))
        for place in range(2, 20):
            rows[:, place] = (rows[:, place - 1] + rows[:, place - 2]) % 7
        (tmp_path / split).write_text("".join(" ".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    files = [f"data_dir={tmp_path}", *(f"dataset.{split}={split}" for split in ("train", "valid", "test"))]
    options = ["experiment=ngram_mlp", "dataset=text", *files, "train.epochs=6", "optimizer.lr=0.01"]
    result = run(tmp_path / "run", *options)
    baselines = result["baselines"]
    assert result["majority"]["perplexity"] > 6
    assert result["metrics"]["test"]["perplexity"] < 2
    # the cache says nothing here, and costs its weight
    assert 1 < baselines["kneser_ney"]["perplexity"] < baselines["kneser_ney_cache"]["perplexity"] < 2
