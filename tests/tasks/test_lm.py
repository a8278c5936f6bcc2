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
from torch import nn

from runner.batching.stream import Stream
from runner.common.errors import HydromelError
from runner.components.measures import started
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import EOS, PAD, SPECIALS, UNK, Vocab
from tasks.lm import Lm
from tests.helpers.metrics import measured
from tests.helpers.target_batches import EncoderOf, lm, words

CONFIGS = Path(__file__).parents[2] / "configs/task"
VOCAB = Vocab(("the", "cat", "sat"), SPECIALS)
VOCABS = {"words": VOCAB, "target": VOCAB}
TEXT = [[3, 4], [], [5], [1, 3, 4, 5]]
EMPTY = pa.table({})


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
    options = {"name": "stream", "batch_size": 2, "window": 3, "half_rate": 0.0, "spread": 0.0, "layout": "packed"}
    strategy = Stream(**options, evaluation_streams=2)  # type: ignore[arg-type]
    split = encode(TEXT, "stream")
    seen = [value for batch in strategy.evaluation_batches(split, 1) for value in batch.target.values.tolist()]
    assert sorted(seen) == sorted(split.target.values.tolist())


def test_no_rows_and_blank_rows() -> None:
    for unit in ("line", "stream"):
        assert encode([], unit).target.values.tolist() == []
    assert rows(encode([[], []]).target) == [[2], [2]]
    assert rows(encode([[], []], "stream").features["words"]) == [[2, 2]]


def test_every_feature_gets_the_end_of_its_own_vocabulary() -> None:
    features = words(TEXT)
    features["shape"] = features["words"].map(lambda ids: ids * 0 + 3)
    shapes = Vocab(("x", "X"), (PAD, UNK, "<bos>", "<cls>", EOS))
    batch = lm().encode(features, EMPTY, {**VOCABS, "shape": shapes})
    assert rows(batch.features["shape"]) == [[4, *[3] * len(row)] for row in TEXT]


def test_an_unknown_feature() -> None:
    assert lm().target_vocab([EMPTY], {"words": VOCAB}) is VOCAB
    with pytest.raises(HydromelError, match=r"^feature 'word' is unknown \(task.feature\); did you mean 'words'\? All"):
        lm(feature="word").target_vocab([EMPTY], {"words": VOCAB})


def test_words_of_valid_and_test_are_not_predicted() -> None:
    vocab = Vocab(("a", "b"), SPECIALS, extra=1)
    table = pa.table({"tokens": pa.array([["a"]], pa.list_(pa.string()))})
    features = {"words": Ragged.from_lists([[3]], torch.int32)}
    with pytest.raises(
        HydromelError, match=r"features\.words\.extend=true: task=lm predicts only words of the training set"
    ):
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
        own = (head.output.weight @ vector + head.output.bias)[1:]  # all but <pad>
        by_hand -= float(torch.log_softmax(own, 0)[answer - 1].detach())
    assert float(loss.total.detach()) == pytest.approx(by_hand, rel=1e-12)
    assert loss.count == 11
    loss.total.backward()
    assert not head.output.weight.grad[0].any()
    assert head.output.weight.grad[1:].isfinite().all()
    assert head.output.bias.grad.isfinite().all()
    padded = Ragged(Ragged(vectors, batch.rows, "packed").pad(fill=torch.nan).values, batch.rows, "padded")
    torch.testing.assert_close(head(padded, batch.pad()), scores)


def test_tied_weights_are_the_embedding_and_leave_its_padding_at_zero() -> None:
    embedding = nn.Embedding(6, 4, padding_idx=0)
    head = lm(tie_weights=True).head(EncoderOf(4), VOCABS, embedding)
    assert head.output.weight is embedding.weight
    assert head.state_dict().keys() == {"output.weight", "output.bias"}
    batch = encode(TEXT)
    encoded = Ragged(embedding(batch.features["words"].values), batch.rows, "packed")
    optimizer = torch.optim.Adam([*embedding.parameters(), head.output.bias], lr=0.1)
    head.loss(head(encoded, batch), batch).total.backward()
    optimizer.step()
    assert not embedding.weight[0].any()
    assert embedding.weight.isfinite().all()
    assert head.output.bias.isfinite().all()


@pytest.mark.parametrize(
    ("embedding", "size", "message"),
    [
        (nn.Identity(), 4, r"^task.tie_weights=true needs embedding=word over the predicted feature"),
        (nn.Embedding(7, 4), 4, r"^task.tie_weights=true needs embedding=word over the predicted feature"),
        (
            nn.Embedding(6, 3),
            4,
            r"^task.tie_weights=true: embedding.size=3, but the encoder's output size is 4; make them equal",
        ),
    ],
)
def test_weights_that_cannot_be_tied(embedding: nn.Module, size: int, message: str) -> None:
    with pytest.raises(HydromelError, match=message):
        lm(tie_weights=True).head(EncoderOf(size), VOCABS, embedding)


def test_one_vector_a_row_is_not_enough() -> None:
    with pytest.raises(HydromelError, match=r"^task=lm needs one vector per token"):
        lm().head(EncoderOf(4, per_token=False), VOCABS, nn.Identity())


def test_bits_per_character_where_tokens_are_characters() -> None:
    characters = Vocab(("a", "é", "<", " "), SPECIALS)
    batch = encode([[3, 4]])
    for vocab, expected in ((characters, True), (VOCAB, False)):
        metric = started(lm().metric, {"target": vocab})
        metric.update(torch.zeros(3), batch)
        assert ("bits_per_character" in metric.compute()) is expected


def test_majority_is_the_unigram_model_of_train() -> None:
    train, test = encode([[3, 3, 4], [3]]), encode([[3, 1]])
    figures = measured(lm(), lm().majority(train, test, VOCABS), test, VOCABS)
    # of train's 6 answers: the 3, cat 1, <eos> 2; <unk> as if seen once, and other words as often as cat and <unk>
    probabilities = [3 / 9, 1 / 9, 2 / 9]
    assert figures["nll"] == pytest.approx(-sum(map(math.log, probabilities)) / 3)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nll"]))


def test_tokens_that_only_test_has_share_the_frequency_of_those_seen_once() -> None:
    train, test = encode([[3, 3]]), encode([[4]])  # <unk> counts as if seen once, as <eos> is
    figures = measured(lm(), lm().majority(train, test, VOCABS), test, VOCABS)
    n_unseen = len(VOCAB) - 4
    assert figures["nll"] == pytest.approx(-(math.log(2 / n_unseen / 6) + math.log(1 / 6)) / 2)


def test_encoding_is_the_same_as_a_plain_loop_over_random_text() -> None:
    rng = np.random.default_rng(0)
    text = [rng.integers(3, 6, rng.integers(0, 12)).tolist() for _ in range(200)]
    assert rows(encode(text).features["words"]) == [[2, *row] for row in text]
    assert rows(encode(text).target) == [[*row, 2] for row in text]


def test_the_config_gives_every_option() -> None:
    options = yaml.safe_load((CONFIGS / "lm.yaml").read_text())
    assert options.pop("_target_") == "tasks.lm.Lm"
    assert options.pop("defaults") == ["_self_", {"override /dataset@_global_.dataset": "stdlib_words"}]
    assert Lm(**options).main_metric == "perplexity"


def test_weights_of_its_own_are_drawn_from_the_range_asked_for() -> None:
    torch.manual_seed(1)
    head = lm(init_range=0.03).head(EncoderOf(400), VOCABS, nn.Identity())
    weight = head.output.weight.detach()
    assert weight.abs().max() <= 0.03
    torch.testing.assert_close(weight.std(), torch.tensor(0.06 / math.sqrt(12)), rtol=0.05, atol=0)
    assert not head.output.bias.any()
    for wrong in ({"tie_weights": True}, {"cutoffs": [3]}):
        with pytest.raises(
            HydromelError, match=r"^task\.init_range=0\.1 initialises a full softmax with its own weights"
        ):
            lm(init_range=0.1, **wrong)


@pytest.mark.parametrize("cutoffs", [[2], [3, 4], [5]])
def test_an_adaptive_softmax_gives_every_string_but_pad_its_share(cutoffs: list[int]) -> None:
    torch.manual_seed(4)
    batch = encode(TEXT)
    head = lm(cutoffs=cutoffs).head(EncoderOf(16), VOCABS, nn.Identity()).double()
    vectors = torch.randn(11, 16, dtype=torch.float64, requires_grad=True)
    scores = head(Ragged(vectors, batch.rows, "packed"), batch)
    shares = head.probabilities(scores, batch)
    assert shares.shape == (11, len(VOCAB))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(11, dtype=torch.float64))
    assert not shares[:, 0].any()
    losses = head.losses(scores, batch).values
    torch.testing.assert_close(losses, -shares.gather(1, batch.target.values[:, None])[:, 0].log())
    assert head.predict(scores, batch).tolist() == shares.argmax(dim=1).tolist()
    head.loss(scores, batch).total.backward()
    assert vectors.grad.abs().sum(dim=1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cutoffs": [9]},
            r"^task.cutoffs=\[9\]: cutoffs \[9\] must increase, from at least 2 to below the vocabulary size 6",
        ),
        ({"cutoffs": [4, 3]}, r"must increase, from at least 2"),
        ({"cutoffs": [1]}, r"must increase, from at least 2"),
        ({"cutoffs": []}, r"^task.cutoffs=\[\]: cutoffs \[\] must increase, from at least 2"),
        ({"cutoffs": [2, 3, 4]}, r"3 cutoffs need vectors of size 64 or more, got 16"),
        ({"cutoffs": [3], "tie_weights": True}, r"an adaptive softmax has its own weights and precision"),
        ({"cutoffs": [3], "precision": "bfloat16"}, r"an adaptive softmax has its own weights and precision"),
    ],
)
def test_cutoffs_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HydromelError, match=message):
        lm(**changes).head(EncoderOf(16), VOCABS, nn.Identity())


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_penalties_are_what_the_paper_says_and_do_not_cross_rows(layout: str) -> None:
    """AR: alpha * mean of squares after dropout; TAR: beta * mean of squared differences before it; none when not
    training, and none in what is measured."""
    torch.manual_seed(5)
    packed = encode(TEXT)
    batch = packed if layout == "packed" else packed.pad()
    task = lm(activation_penalty=2.0, change_penalty=3.0, locked_dropout=0.5)
    head = task.head(EncoderOf(8), VOCABS, nn.Identity()).double()
    plain = torch.randn(11, 8, dtype=torch.float64)
    encoded = Ragged(plain, packed.rows, "packed")
    scores = head(encoded if layout == "packed" else encoded.pad(torch.nan), batch)
    dropped = scores[:, :8]
    expected = head.losses(scores, batch).values.sum() + 2.0 * (dropped**2).mean(dim=1).sum()
    ends = packed.rows.host_offsets.tolist()
    for start, end in pairwise(ends):
        for token in range(start + 1, end):
            expected = expected + 3.0 * ((plain[token] - plain[token - 1]) ** 2).mean()
        kept = dropped[start:end] != 0  # locked: the same numbers at all tokens of a row
        assert (kept == kept[:1]).all()
    torch.testing.assert_close(head.loss(scores, batch).total, expected)
    assert 0 < int((dropped == 0).sum()) < dropped.numel()
    head.eval()
    scores = head(encoded, packed)
    torch.testing.assert_close(scores, plain)
    torch.testing.assert_close(head.loss(scores, packed).total, head.losses(scores, packed).values.sum())
