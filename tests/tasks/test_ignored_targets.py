"""Ignored targets are out of everything: heads and metrics equal those on the targets that remain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.components.measures import Measures
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tasks.heads.outputs import label_weights
from tests.helpers.contract import POISON
from tests.helpers.target_batches import EncoderOf, classify, tag, tagged, words

X = IGNORED
ROWS = [[0, X, 2, 1], [], [X, X], [1], [X, 3, X], [4, 4, 0, X, X, 2]]
TAGS = Vocab(("O", "B-A", "I-A", "B-B", "I-B"), counts=(5, 4, 3, 2, 1))
VOCABS = {"words": Vocab(("a",), SPECIALS), "target": TAGS}
N = sum(map(len, ROWS))
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "smoothed and weighted": {"label_smoothing": 0.1, "label_weights": {"O": 0.5, "B-B": 3.0}},
    "balanced": {"label_weights": "balanced"},
    "constrained": {"constraints": "decode", "span_scheme": "IOB2"},
    "count": {"head": "count"},
    "crf": {"head": "crf"},
    "crf of legal paths": {"head": "crf", "constraints": "both", "span_scheme": "IOB2"},
}


def head_of(kind: str) -> Any:
    torch.manual_seed(0)
    head: Any = tag(**KINDS[kind]).head(EncoderOf(5), VOCABS, nn.Identity())
    return head.double()


def tokens_of(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(N, 5, dtype=torch.float64)


def outcome(head: Any, batch: Batch, tokens: Tensor, poison: float = 0.0) -> tuple[Tensor, ...]:
    """Return the loss, its count, and the gradients of the tokens (N, 5) and of the head's parameters."""
    assert isinstance(batch.target, Ragged)
    leaf = tokens.clone().requires_grad_()
    packed = Ragged(leaf, batch.target.rows, "packed")
    if batch.features["words"].layout == "packed":
        encoded = packed
    else:
        encoded = Ragged(packed.pad(poison).values, batch.rows, "padded")
    loss = head.loss(head(encoded, batch), batch)
    grads = torch.autograd.grad(loss.total, [leaf, *head.parameters()], allow_unused=True)
    zeros = (torch.zeros_like(leaf), *(torch.zeros_like(parameter) for parameter in head.parameters()))
    filled = [zero if grad is None else grad for grad, zero in zip(grads, zeros, strict=True)]
    return loss.total.detach(), torch.tensor(loss.count), *filled


def one_by_one(head: Any, split: Batch, tokens: Tensor) -> tuple[Tensor, ...]:
    """Return the same, one row at a time: sums, and the tokens' gradients joined."""
    own = tokens.split([len(row) for row in ROWS])
    results = [outcome(head, split.select(np.array([row])), own[row]) for row in range(len(ROWS))]
    total, count, grads, *others = zip(*results, strict=True)
    return sum(total), sum(count), torch.cat(grads), *(sum(part) for part in others)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_padded_and_single_rows_agree_whatever_is_ignored(kind: str) -> None:
    head, split, tokens = head_of(kind), tagged(ROWS), tokens_of()
    if kind == "crf of legal paths":
        split = tagged([[0, X, 2, 1], [], [X, X], [1], [X, 3, X], [3, 4, 0, X, X, 2]])
    expected = one_by_one(head, split, tokens)
    layouts = [split, split.unmasked(), split.step_by_step()]
    wide = split.select(np.arange(len(ROWS)), width=11)
    cases = [(layout, 0.0) for layout in layouts] + [(item.pad(), value) for item in (split, wide) for value in POISON]
    for batch, poison in cases:
        for actual, wanted in zip(outcome(head, batch, tokens, poison), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-11)
    assert int(expected[1]) == sum(target != X for row in ROWS for target in row)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "crf" not in kind])
def test_the_loss_is_that_of_the_targets_that_remain(kind: str) -> None:
    head, tokens = head_of(kind), tokens_of()
    kept = torch.tensor([target != X for row in ROWS for target in row])
    remaining = tagged([[target for target in row if target != X] for row in ROWS])
    total, count, grads, *others = outcome(head, tagged(ROWS), tokens)
    expected = outcome(head, remaining, tokens[kept])
    for actual, wanted in zip((total, count, grads[kept], *others), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-13)
    assert not grads[~kept].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_which_all_is_ignored_has_no_loss_and_no_gradient(kind: str) -> None:
    head, split = head_of(kind), tagged([[X, X, X], [], [X]])
    total, count, *grads = outcome(head, split.pad(), tokens_of()[:4], float("nan"))
    assert int(count) == 0
    assert all(float(value.abs().max()) < 1e-12 for value in (total, *grads))
    assert tag(**KINDS[kind]).count(split) == 0


def figures(measures: Measures, batches: list[Batch], predicted: Tensor) -> dict[str, object]:
    measurement, start = measures.start(VOCABS), 0
    for batch in batches:
        n = int(batch.targets_per_row.sum())
        losses = Ragged(predicted[start : start + n].double(), batch.target.rows, "packed")
        measurement.update({"predictions": predicted[start : start + n], "losses": losses}, batch)
        start += n
    return measurement.compute()


@pytest.mark.parametrize("scheme", [None, "IOB2"])
def test_metrics_are_those_of_the_targets_that_remain_in_any_batches(scheme: str | None) -> None:
    measures, predicted = Measures.of(tag(span_scheme=scheme)), torch.arange(N) % 5
    kept = torch.tensor([target != X for row in ROWS for target in row])
    expected = figures(measures, [tagged([[t for t in row if t != X] for row in ROWS])], predicted[kept])
    assert figures(measures, [tagged(ROWS)], predicted) == expected
    assert figures(measures, [tagged([row]) for row in ROWS], predicted) == expected
    assert figures(measures, [tagged(ROWS[:3]).pad(), tagged(ROWS[3:]).unmasked()], predicted) == expected


def table(rows: list[list[str | None]]) -> pa.Table:
    strings = pa.list_(pa.string())
    return pa.table({"tokens": pa.array([["a"] * len(row) for row in rows], strings), "tags": pa.array(rows, strings)})


def encoded(task: Any, rows: list[list[str | None]]) -> tuple[Vocab, list[int]]:
    target = task.target_vocab([table(rows)], {})
    batch = task.encode(words([[1] * len(row) for row in rows]), table(rows), {"target": target})
    return target, batch.target.values.tolist()


def test_named_tags_and_missing_ones_are_ignored_and_counted_nowhere() -> None:
    rows: list[list[str | None]] = [["N", "_", "V"], [None, "-100"], ["V", "V"]]
    target, ids = encoded(tag(ignore=["_", -100]), rows)
    assert (target.tokens, target.counts) == (("N", "V"), (1, 3))
    assert ids == [0, X, 1, X, X, 1, 1]
    assert label_weights("balanced", target).tolist() == [2.0, pytest.approx(4 / 6)]
    assert encoded(tag(ignore=[]), [["_", "-100"]])[0].tokens == ("-100", "_")
    with pytest.raises(HydromelError, match=r"^train has no tag: all 3 are ignored \(missing, -100 or task\.ignore\)"):
        encoded(tag(ignore=["_"]), [["_", "_"], ["_"]])


def test_converted_tags_are_those_around_the_ignored_ones() -> None:
    task = tag(span_scheme="IOB2", train_scheme="IOBES", ignore=["-100"])
    target, ids = encoded(task, [["B-A", "-100", "I-A", "O"], ["-100", "B-A", "-100"]])
    assert [target.tokens[id_] if id_ != X else "-" for id_ in ids] == ["B-A", "-", "E-A", "O", "-", "S-A", "-"]


def test_baselines_neither_learn_from_ignored_targets_nor_predict_them() -> None:
    task, train = tag(), tagged([[X, X, X, 1], [1, 2, X]])
    train = replace(train, features=words([[2, 2, 2, 2], [2, 2, 2]]))
    assert task.majority(train, train, VOCABS).tolist() == [1] * 7
    ((_, predicted),) = task.baselines(train, train, VOCABS)
    assert predicted.tolist() == [1] * 7


def test_rows_whose_label_is_ignored_are_left_out() -> None:
    task = classify(ignore=["?"])
    rows = pa.table({"label": ["a", "?", "b", "?", "a"]})
    target = task.target_vocab([rows], {})
    batch = task.encode(words([[1], [1, 1], [1, 1, 1], [], [2]]), rows, {"target": target})
    assert (target.tokens, target.counts) == (("a", "b"), (2, 1))
    assert isinstance(batch.target, Tensor)
    assert (batch.target.tolist(), batch.index.tolist()) == ([0, 1, 0], [0, 2, 4])
    assert batch.rows.host_lengths.tolist() == [1, 3, 1]
    assert batch.left_out == 2
