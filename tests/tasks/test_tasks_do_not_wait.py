"""Heads, losses and metrics never synchronise: on a GPU a synchronisation costs more than the work of a small batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner.components.measures import started
from runner.interfaces import ChoosesOnValid
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.target_batches import EncoderOf, classify, labelled, lm, regress, tag, tagged, with_sets, words

# what reads a value on the host, or has a shape that depends on values
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "is_nonzero", "equal")


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        boolean_index = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or boolean_index:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


VOCAB = Vocab(("a",), SPECIALS)
LABELS = {"words": VOCAB, "target": Vocab(("O", "B-A", "I-A", "B-B"))}
FIVE = {"words": VOCAB, "target": Vocab(tuple("abcde"))}  # as many as the encoder's vectors have numbers


def lm_batch(task: Any) -> Batch:
    batch: Batch = task.encode(words([[3, 3], [], [3]]), None, {"words": VOCAB, "target": VOCAB})
    return batch


CASES: dict[str, tuple[Any, Callable[[Any], Batch], dict[str, Vocab]]] = {
    "classify": (
        classify(dropout=0.1),
        lambda task: labelled([0, 3, 1], lengths=[2, 0, 3]),
        LABELS,
    ),
    "hinge": (classify(head="hinge"), lambda task: labelled([0, 3, 1], lengths=[2, 0, 3]), LABELS),
    "sigmoid": (
        classify(labels="many", threshold="one", label_smoothing=0.1, label_weights={"O": 2.0}),
        lambda task: with_sets([[0, 3], [], [1]], lengths=[2, 0, 3]),
        LABELS,
    ),
    "hinge_sets": (
        classify(labels="many", head="hinge"),
        lambda task: with_sets([[], [], []], lengths=[2, 0, 3]),
        LABELS,
    ),
    "regress": (
        regress(dropout=0.1, loss="huber"),
        lambda task: task.encode(words([[3, 3], [], [3]]), pa.table({"value": [0.5, -1.0, 3.0]}), {}),
        LABELS,
    ),
    "count": (tag(dropout=0.1, head="count"), lambda task: tagged([[0, 1], [4]]), FIVE),
    "tag": (tag(dropout=0.1), lambda task: tagged([[0, 1], [], [3]]), LABELS),
    "spans": (tag(dropout=0.1, span_scheme="IOB2"), lambda task: tagged([[0, 1], [], [3]]), LABELS),
    "constrained": (
        tag(dropout=0.1, constraints="decode", span_scheme="IOB2"),
        lambda task: tagged([[0, 1], [], [3]]),
        LABELS,
    ),
    "crf": (
        tag(dropout=0.1, head="crf", constraints="both", span_scheme="IOB2"),
        lambda task: tagged([[0, 1], [], [3]]),
        LABELS,
    ),
    "lm": (
        lm(dropout=0.1, activation_penalty=2.0, change_penalty=1.0),
        lm_batch,
        {"words": VOCAB, "target": VOCAB},
    ),
}


@pytest.mark.parametrize("layout", ["packed", "padded", "unmasked"])
@pytest.mark.parametrize("case", CASES)
def test_no_step_of_training_or_evaluation_waits(case: str, layout: str) -> None:
    task, make, vocabs = CASES[case]
    packed = make(task)
    batch = {"packed": packed, "padded": packed.pad(), "unmasked": packed.unmasked()}[layout]
    head, metric = task.head(EncoderOf(5), vocabs, nn.Identity()), started(task.metric, vocabs)
    tokens = torch.zeros(*batch.features["words"].values.shape, 5, requires_grad=True)
    encoded = Ragged(tokens, batch.rows, batch.features["words"].layout)
    with NoWaiting():
        scores = head(encoded, batch)
        loss = head.loss(scores, batch)
        loss.total.backward()
        answers, probabilities = head.predict(scores.detach(), batch), head.probabilities(scores.detach(), batch)
        losses = head.losses(scores.detach(), batch)
        flat = losses.tokens() if isinstance(losses, Ragged) else losses
        metric.update(flat if metric.input_kind == "losses" else answers, batch)
        for part in (part for part in head.modules() if isinstance(part, ChoosesOnValid)):
            if (chooser := part.chooser()) is not None:
                chooser.update(scores.detach(), batch)
    assert loss.count == task.count(batch)
    assert metric.compute()
    if metric.input_kind == "label_sets":
        assert answers.shape == probabilities.shape == scores.shape
        return
    assert answers.shape == scores.shape[:1]
    if probabilities is not None:
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(answers)))


def test_the_check_can_fail() -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        torch.arange(3)[torch.tensor([True, False, True])]
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        torch.tensor(np.float64(1.0)).item()
