from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from answer_batches import EncoderOf, words
from torch import nn

from runner.batch import Batch
from runner.batching.stream import Stream
from runner.errors import HydromelError
from runner.ragged import Ragged
from runner.vocab import EOS, PAD, UNK, Vocab
from tasks.lm import Lm

CONFIGS = Path(__file__).parents[2] / "configs/task"
VOCAB = Vocab((PAD, UNK, EOS, "the", "cat", "sat"), unk=1)
VOCABS = {"words": VOCAB, "target": VOCAB}
TEXT = [[3, 4], [], [5], [1, 3, 4, 5]]
EMPTY = pa.table({})


def lm(**changes: Any) -> Lm:
    options = {"quality": "perplexity", "unit": "line", "feature": "words", "tie_weights": False, "dropout": 0.0}
    return Lm(**{"name": "lm", **options, **changes})


def encode(lists: list[list[int]], unit: Literal["line", "stream"] = "line") -> Batch:
    return lm(unit=unit).encode(words(lists), EMPTY, VOCABS)


def rows(ragged: Any) -> list[list[int]]:
    ends = ragged.rows.host_offsets
    return [ragged.values[start:end].tolist() for start, end in pairwise(ends)]


def test_lines_are_shifted_by_one_and_end_with_eos() -> None:
    batch = encode(TEXT)
    assert rows(batch.features["words"]) == [[2, *row] for row in TEXT]
    assert rows(batch.target) == [[*row, 2] for row in TEXT]
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert lm().count(batch) == 7 + 4
    assert lm().causal is True


def test_a_stream_is_one_row_with_every_token_predicted_once() -> None:
    batch = encode(TEXT, "stream")
    stream = [token for row in TEXT for token in [*row, 2]]
    assert rows(batch.target) == [stream]
    assert rows(batch.features["words"]) == [[2, *stream[:-1]]]
    assert batch.index.tolist() == [0]


def test_a_stream_can_be_read_in_windows() -> None:
    strategy = Stream(name="stream", batch_size=2, window=3, evaluation_streams=2, layout="packed")
    split = encode(TEXT, "stream")
    seen = [one for batch in strategy.evaluation(split, 1) for one in batch.target.values.tolist()]
    assert sorted(seen) == sorted(split.target.values.tolist())


def test_no_rows_and_blank_rows() -> None:
    for unit in ("line", "stream"):
        assert encode([], unit).target.values.tolist() == []
    assert rows(encode([[], []]).target) == [[2], [2]]
    assert rows(encode([[], []], "stream").features["words"]) == [[2, 2]]


def test_every_feature_gets_the_end_of_its_own_vocabulary() -> None:
    features = words(TEXT)
    features["shape"] = features["words"].map(lambda ids: ids * 0 + 3)
    shapes = Vocab((PAD, UNK, "x", "X", EOS), unk=1)
    batch = lm().encode(features, EMPTY, {**VOCABS, "shape": shapes})
    assert rows(batch.features["shape"]) == [[4, *[3] * len(row)] for row in TEXT]


def test_an_unknown_feature() -> None:
    assert lm().target_vocab(EMPTY, {"words": VOCAB}) is VOCAB
    with pytest.raises(HydromelError, match=r"^feature 'word' is unknown \(task.feature\); did you mean 'words'\? All"):
        lm(feature="word").target_vocab(EMPTY, {"words": VOCAB})


def test_words_of_valid_and_test_are_not_predicted() -> None:
    vocab = Vocab((PAD, UNK, EOS, "a", "b"), unk=1, extra=1)
    table = pa.table({"tokens": pa.array([["a"]], pa.list_(pa.string()))})
    features = {"words": Ragged.from_lists([[3]], torch.int32)}
    with pytest.raises(HydromelError, match=r"features\.words\.extend=true: task=lm predicts words of train alone"):
        lm().encode(features, table, {"words": vocab, "target": vocab})


def test_loss_is_over_real_tokens_and_never_gives_pad_a_share() -> None:
    torch.manual_seed(2)
    batch = encode(TEXT)
    vectors = torch.randn(11, 8, dtype=torch.float64)
    head = lm().head(EncoderOf(8), VOCABS, nn.Identity()).double()
    scores = head(Ragged(vectors, batch.rows, "packed"), batch)
    loss = head.loss(scores, batch)
    by_hand = 0.0
    for vector, answer in zip(vectors, batch.target.values.tolist(), strict=True):
        own = (head.weight @ vector + head.bias)[1:]  # all but <pad>
        by_hand -= float(torch.log_softmax(own, 0)[answer - 1].detach())
    assert float(loss.total.detach()) == pytest.approx(by_hand, rel=1e-12)
    assert loss.count == 11
    loss.total.backward()
    assert not head.weight.grad[0].any()
    assert head.weight.grad[1:].isfinite().all()
    assert head.bias.grad.isfinite().all()
    padded = Ragged(Ragged(vectors, batch.rows, "packed").pad(fill=torch.nan).values, batch.rows, "padded")
    torch.testing.assert_close(head(padded, batch.pad()), scores)


def test_tied_weights_are_the_embedding_and_leave_its_padding_at_zero() -> None:
    embedding = nn.Embedding(6, 4, padding_idx=0)
    head = lm(tie_weights=True).head(EncoderOf(4), VOCABS, embedding)
    assert head.weight is embedding.weight
    assert head.state_dict().keys() == {"weight", "bias"}
    batch = encode(TEXT)
    encoded = Ragged(embedding(batch.features["words"].values), batch.rows, "packed")
    optimizer = torch.optim.Adam([*embedding.parameters(), head.bias], lr=0.1)
    head.loss(head(encoded, batch), batch).total.backward()
    optimizer.step()
    assert not embedding.weight[0].any()
    assert embedding.weight.isfinite().all()
    assert head.bias.isfinite().all()


@pytest.mark.parametrize(
    ("embedding", "size", "message"),
    [
        (nn.Identity(), 4, r"^task.tie_weights=true needs embedding=word over the predicted feature"),
        (nn.Embedding(7, 4), 4, r"^task.tie_weights=true needs embedding=word over the predicted feature"),
        (nn.Embedding(6, 3), 4, r"^task.tie_weights=true: embedding.size=3, but the encoder gives 4; make them equal"),
    ],
)
def test_weights_that_cannot_be_tied(embedding: nn.Module, size: int, message: str) -> None:
    with pytest.raises(HydromelError, match=message):
        lm(tie_weights=True).head(EncoderOf(size), VOCABS, embedding)


def test_one_vector_a_row_is_not_enough() -> None:
    with pytest.raises(HydromelError, match=r"^task=lm needs a vector for each token"):
        lm().head(EncoderOf(4, per_token=False), VOCABS, nn.Identity())


def test_bits_per_character_where_tokens_are_characters() -> None:
    characters = Vocab((PAD, UNK, EOS, "a", "é", "<", " "), unk=1)
    batch = encode([[3, 4]])
    for vocab, expected in ((characters, True), (VOCAB, False)):
        metric = lm().metric({"target": vocab})
        metric.update(torch.zeros(3, 7), batch)
        assert ("bits_per_character" in metric.compute()) is expected


def test_majority_is_the_unigram_model_of_train() -> None:
    train, test = encode([[3, 3, 4], [3]]), encode([[3, 1]])
    figures = lm().majority(train, test, VOCABS)
    # of train's 6 answers: the 3, cat 1, <eos> 2, and <unk> as if seen once
    probabilities = [3 / 7, 1 / 7, 2 / 7]
    assert figures["nll"] == pytest.approx(-sum(map(math.log, probabilities)) / 3)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nll"]))


def test_encoding_is_the_same_as_a_plain_loop_over_random_text() -> None:
    rng = np.random.default_rng(0)
    text = [rng.integers(3, 6, rng.integers(0, 12)).tolist() for _ in range(200)]
    assert rows(encode(text).features["words"]) == [[2, *row] for row in text]
    assert rows(encode(text).target) == [[*row, 2] for row in text]


def test_the_config_gives_every_option() -> None:
    options = yaml.safe_load((CONFIGS / "lm.yaml").read_text())
    assert options.pop("_target_") == "tasks.lm.Lm"
    assert options.pop("defaults") == ["_self_", {"override /dataset@_global_.dataset": "stdlib_words"}]
    assert Lm(**options).quality == "perplexity"
