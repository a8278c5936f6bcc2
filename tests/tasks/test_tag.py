from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch import nn

from runner.common.errors import HydromelError
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.tag import Tag
from tests.helpers.metrics import by_name, measured
from tests.helpers.target_batches import EncoderOf, tag, tagged, words

CONFIGS = Path(__file__).parents[2] / "configs/task"
ABC = {"target": Vocab(("a", "b", "c"))}


def table(tags: list[list[str]], **columns: Any) -> pa.Table:
    return pa.table({"tags": pa.array(tags, pa.list_(pa.string())), **columns})


def test_plain_tags_are_those_of_train() -> None:
    task = tag()
    vocab = task.target_vocab([table([["V", "N"], [], ["N"]])], {})
    assert vocab.tokens == ("N", "V")
    batch = task.encode(words([[1], [], [1, 2]]), table([["V"], [], ["N", "V"]]), {"target": vocab})
    assert isinstance(batch.target, Ragged)
    assert batch.target.values.tolist() == [1, 0, 1]
    assert batch.target.rows is batch.rows
    assert task.count(batch) == 3
    assert task.count(batch.select(np.array([2, 1]))) == 2
    assert task.count(batch.unmasked()) == 3
    assert task.causal is False


def test_a_slice_of_a_table_is_read_from_its_own_beginning() -> None:
    actual = table([["a", "b"], ["c"], ["b", "b"]]).slice(1)
    batch = tag().encode(words([[1], [1, 1]]), actual, ABC)
    assert batch.target.values.tolist() == [2, 1, 1]


def test_a_scheme_closes_the_tags_over_their_types() -> None:
    train = table([["O", "B-PER"], ["B-LOC", "I-LOC"]])
    assert tag(span_scheme="IOB2").target_vocab([train], {}).tokens == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    iobes = tag(span_scheme="IOBES").target_vocab([table([["S-A"]])], {})
    assert iobes.tokens == ("O", "B-A", "I-A", "E-A", "S-A")


def test_malformed_tags_that_the_reader_kept_stay() -> None:
    vocab = tag(span_scheme="IOB2").target_vocab([table([["B-A", "X-A"]])], {})
    assert vocab.tokens == ("O", "B-A", "I-A", "X-A")


def test_plain_tags_under_a_scheme_are_an_error() -> None:
    with pytest.raises(
        HydromelError, match=r"^task.span_scheme=IOB2: no tag of the training set encodes a span \(N, V, ...\); use"
    ):
        tag(span_scheme="IOB2").target_vocab([table([["N", "V"]])], {})


def test_a_tag_that_train_lacks_is_named_with_its_place() -> None:
    actual = table([["a", "b"], [], ["c", "odd"]], line=[1, 4, 5]).replace_schema_metadata({"path": "x.conll"})
    with pytest.raises(
        HydromelError, match=r"^x.conll:5, token 2: tag 'odd' is not in the training set, .* 3 tags: a, b, c$"
    ):
        tag().encode(words([[1, 1], [], [1, 1]]), actual, ABC)


def test_tags_and_tokens_of_different_numbers() -> None:
    with pytest.raises(HydromelError, match=r"^row 2: 1 tags for 2 tokens$"):
        tag().encode(words([[1], [1, 1]]), table([["a"], ["b"]]), ABC)


def test_qualities() -> None:
    assert tag().main_metric == "accuracy"
    assert tag(span_scheme="IOB1").main_metric == "f1"
    assert tag(quality="macro_f1").main_metric == "macro_f1"
    with pytest.raises(HydromelError, match=r"^task.quality=f1; with task.span_scheme=null use accuracy or macro_f1$"):
        tag(quality="f1")
    with pytest.raises(HydromelError, match=r"^task.quality=macro_f1; with task.span_scheme=IOB2 use f1 or accuracy$"):
        tag(quality="macro_f1", span_scheme="IOB2")


def test_an_unknown_scheme() -> None:
    with pytest.raises(HydromelError, match=r"^span_scheme='BIOE'; use one of IOB1, .* or null \(configs/"):
        tag(span_scheme="BIOE")


def encoded_like(batch: Batch, tokens: torch.Tensor) -> Ragged:
    """Return `tokens` (N, D) of the true rows in the layout of the batch's features, with NaN as padding."""
    assert isinstance(batch.target, Ragged)
    packed = Ragged(tokens, batch.target.rows, "packed")
    if batch.features["words"].layout == "packed":
        return packed
    return Ragged(packed.pad(fill=torch.nan).values, batch.rows, "padded")


def loss_and_gradients(batch: Batch, tokens: torch.Tensor, head: Any) -> tuple[float, list[torch.Tensor]]:
    head.zero_grad()
    scores = head(encoded_like(batch, tokens), batch)
    assert scores.shape == (len(tokens), 3)
    loss = head.loss(scores, batch)
    assert loss.count == len(tokens)
    loss.total.backward()
    return float(loss.total.detach()), [parameter.grad.clone() for parameter in head.parameters()]


def test_loss_is_over_real_tokens_alone_in_every_layout() -> None:
    torch.manual_seed(1)
    head = tag().head(EncoderOf(4), ABC, nn.Identity()).double()
    split = tagged([[0, 2, 1], [], [1], [2, 2]])
    tokens = torch.randn(6, 4, dtype=torch.float64)
    by_hand = -sum(
        float(torch.log_softmax(head.linear(vector), 0)[answer].detach())
        for vector, answer in zip(tokens, (0, 2, 1, 1, 2, 2), strict=True)
    )
    wide = split.select(np.arange(4), width=9)
    packed = loss_and_gradients(split, tokens, head)
    assert packed[0] == pytest.approx(by_hand, rel=1e-12)
    for batch in (split.pad(), wide.pad(), split.unmasked(), wide.unmasked(), wide):
        total, gradients = loss_and_gradients(batch, tokens, head)
        assert total == pytest.approx(packed[0], rel=1e-14)
        for one, other in zip(gradients, packed[1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


def test_unmasked_features_that_an_encoder_packed() -> None:
    """The whole rectangle is packed, because the rows claim to fill it."""
    split = tagged([[0, 2, 1], [1]])
    batch, tokens = split.unmasked(), torch.randn(4, 4)
    head = tag().head(EncoderOf(4), ABC, nn.Identity())
    torch.testing.assert_close(head(encoded_like(batch, tokens).pack(), batch), head.linear(tokens))


def test_a_batch_of_empty_rows_has_no_loss() -> None:
    head = tag().head(EncoderOf(4), ABC, nn.Identity())
    batch = tagged([[], []])
    loss = head.loss(head(Ragged(torch.zeros(0, 4), batch.rows, "packed"), batch), batch)
    loss.total.backward()
    assert (float(loss.total.detach()), loss.count) == (0.0, 0)
    assert not head.linear.weight.grad.any()


def test_one_vector_a_row_is_not_enough() -> None:
    expected = "^task=tag needs one vector per token, but this encoder computes one per row; use encoder=conv, rnn"
    with pytest.raises(HydromelError, match=expected):
        tag().head(EncoderOf(4, per_token=False), ABC, nn.Identity())


def test_majority() -> None:
    task, test = tag(), tagged([[1], [0, 1, 1]])
    figures = measured(task, task.majority(tagged([[1, 1], [0]]), test, ABC), test, ABC)
    assert figures["accuracy"] == pytest.approx(75.0)
    task, vocabs = tag(span_scheme="IOB2"), {"target": Vocab(("O", "B-A", "I-A"))}
    test = tagged([[0, 1, 2], [0]])
    spans = measured(task, task.majority(tagged([[0, 0, 1]]), test, vocabs), test, vocabs)
    assert (spans["accuracy"], spans["f1"], by_name(spans["per_type"])["A"]["support"]) == (50.0, 0.0, 1)


def test_the_config_gives_every_option() -> None:
    options = yaml.safe_load((CONFIGS / "tag.yaml").read_text())
    assert options.pop("_target_") == "tasks.tag.Tag"
    assert options.pop("defaults") == ["_self_", {"override /dataset@_global_.dataset": "stdlib_roles"}]
    assert Tag(**{**options, "span_scheme": "IOB2"}).main_metric == "f1"
