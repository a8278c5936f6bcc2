"""The tagging head's losses and predictions: a softmax or a CRF, with or without constraints by the span scheme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.components.measures import Measures
from runner.interfaces import START
from runner.layers.crf.chain import path_scores
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from runner.training.evaluation import evaluate
from tasks.spans.table import all_tags
from tasks.spans.tags import illegal_positions
from tasks.tag import Tag
from tests.helpers import target_batches
from tests.helpers.target_batches import EncoderOf, tagged

TAGS = tuple(all_tags(["LOC", "PER"], "IOBES"))
VOCABS = {"target": Vocab(TAGS)}
GOLD = [[0, 4, 1, 3], [], [5, 7], [0]]


def tag(**changes: Any) -> Tag:
    """Return a task with a CRF over IOBES, with `changes` applied."""
    return target_batches.tag(**{"span_scheme": "IOBES", "head": "crf", **changes})


def head_of(task: Tag) -> Any:
    torch.manual_seed(0)
    head: Any = task.head(EncoderOf(4), VOCABS, nn.Identity())
    return head.double()


def encoded(batch: Batch, tokens: Tensor) -> Ragged:
    """Return `tokens` (N, D) of the true rows in the layout of the batch's features, with NaN as padding."""
    assert isinstance(batch.target, Ragged)
    packed = Ragged(tokens, batch.target.rows, "packed")
    if batch.features["words"].layout == "packed":
        return packed
    return Ragged(packed.pad(fill=torch.nan).values, batch.rows, "padded")


@pytest.mark.parametrize("layout", ["packed", "padded", "unmasked", "wide"])
def test_a_crfs_loss_is_that_of_each_row_alone_counted_by_tokens(layout: str) -> None:
    split, tokens = tagged(GOLD), torch.randn(7, 4, dtype=torch.float64)
    wide = split.select(np.arange(4), width=9).pad()
    batch = {"packed": split, "padded": split.pad(), "unmasked": split.unmasked(), "wide": wide}[layout]
    head = head_of(tag(constraints="both"))
    scores = head(encoded(batch, tokens), batch)
    loss, losses = head.loss(scores, batch), head.losses(scores, batch)
    alone = []
    for row, own in enumerate(tokens.split([len(item) for item in GOLD])):
        item = split.select(np.array([row]))
        alone.append(head.loss(head(encoded(item, own), item), item).total)
    assert loss.count == 7
    torch.testing.assert_close(losses, torch.stack(alone))
    torch.testing.assert_close(loss.total, torch.stack(alone).sum())
    assert losses[1] == 0
    assert (losses[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("kind", ["softmax", "crf"])
def test_constrained_answers_are_legal_and_the_best_of_those_that_are(kind: str) -> None:
    lengths = [6, 0, 1, 9, 3]
    batch = tagged([[0] * length for length in lengths])
    offsets = np.cumsum([0, *lengths])
    torch.manual_seed(2)
    scores = 5 * torch.randn(sum(lengths), len(TAGS), dtype=torch.float64)

    def faults(answers: Tensor) -> int:
        return len(illegal_positions(pa.array([TAGS[answer] for answer in answers.tolist()]), offsets, "IOBES"))

    held, free = (head_of(tag(head=kind, constraints=how)) for how in ("decode", "none"))
    answers, unconstrained = held.predict(scores, batch), free.predict(scores, batch)
    assert faults(answers) == 0
    assert faults(unconstrained) > 0
    if kind == "softmax":
        assert torch.equal(unconstrained, scores.argmax(1))
        legal = scores.log_softmax(1).gather(1, answers[:, None]).sum()
        rng = np.random.default_rng(0)
        for guess in rng.integers(0, len(TAGS), (3000, len(scores))):
            if faults(torch.from_numpy(guess)) == 0:
                assert legal >= scores.log_softmax(1).gather(1, torch.from_numpy(guess)[:, None]).sum()
    else:
        chain = held.output.crf.chain("decode")
        own = path_scores(scores, answers, chain, batch.rows)
        assert own.isfinite().all()
        assert (path_scores(scores, unconstrained, chain, batch.rows) <= own).all()


def test_probabilities_of_a_crf_are_marginals() -> None:
    batch, head = tagged(GOLD), head_of(tag(constraints="decode"))
    scores = torch.randn(7, len(TAGS), dtype=torch.float64)
    actual = head.probabilities(scores, batch)
    torch.testing.assert_close(actual.sum(1), torch.ones(7, dtype=torch.float64))
    assert actual[0, TAGS.index("I-LOC")] == 0  # nothing begins with I
    assert head.probabilities(scores.float(), batch).dtype == torch.float32


class Says(nn.Module):
    """A model with given scores."""

    def __init__(self, head: nn.Module, scores: Tensor) -> None:
        super().__init__()
        self.head, self.scores = head, scores

    def forward(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        return self.scores, START


def test_what_is_measured_is_what_is_decoded() -> None:
    """I-LOC is the most likely tag of a last token where only E-LOC is legal; in strict mode it is not a span."""
    batch = tagged([[TAGS.index("B-LOC"), TAGS.index("E-LOC")]])
    scores = torch.full((2, len(TAGS)), -9.0, dtype=torch.float64)
    scores[0, TAGS.index("B-LOC")], scores[1, TAGS.index("I-LOC")], scores[1, TAGS.index("E-LOC")] = 5.0, 2.0, 1.0
    measured = {}
    for how in ("none", "decode"):
        task = tag(head="softmax", constraints=how)
        model: Any = Says(head_of(task), scores)
        measured[how] = evaluate(model, Measures.of(task).start(VOCABS), [batch], bf16=False)["f1"]
    assert measured == {"none": 0.0, "decode": 100.0}


def test_a_crf_over_plain_tags_has_nothing_to_forbid() -> None:
    task, vocabs = tag(span_scheme=None), {"target": Vocab(("N", "V"))}
    head: Any = task.head(EncoderOf(4), vocabs, nn.Identity())
    assert head.predict(torch.zeros(7, 2), tagged(GOLD)).shape == (7,)
    with pytest.raises(
        HydromelError, match=r"^task.constraints=decode needs span tags, but task.span_scheme=null means plain t"
    ):
        tag(span_scheme=None, constraints="decode")


def test_a_softmax_is_not_constrained_in_training() -> None:
    for constraints in ("train", "both"):
        with pytest.raises(HydromelError, match=rf"^task.constraints={constraints}: a softmax has no trans"):
            tag(head="softmax", constraints=constraints)


def test_gold_tags_that_a_constrained_crf_cannot_learn_are_named() -> None:
    train = pa.table({"tags": pa.array([["O"], ["O", "I-PER"]], pa.list_(pa.string()))})
    for constraints in ("none", "decode"):
        assert "I-PER" in tag(constraints=constraints).target_vocab([train], {}).tokens
    with pytest.raises(HydromelError, match=r"^row 2, token 2: tag 'I-PER' is illegal here in IOBES, and a CRF with"):
        tag(constraints="train").target_vocab([train], {})
    assert tag(span_scheme="IOB2", train_scheme="IOBES", constraints="both").target_vocab(
        [train], {}
    )  # converted: legal


def test_a_softmax_over_many_tags_makes_no_table_of_all_pairs() -> None:
    """It would have 40 GB."""
    vocabs = {"target": Vocab(tuple(all_tags([f"t{number}" for number in range(50_000)], "IOB2")))}
    task = tag(span_scheme="IOB2", head="softmax", constraints="none")
    head = task.head(EncoderOf(4), vocabs, nn.Identity())
    assert max(part.numel() for part in (*head.parameters(), *head.buffers())) == 4 * 100_001
